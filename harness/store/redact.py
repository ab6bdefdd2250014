"""What must not be stored: credentials on the command line and in URLs.

A credential is told by the *name* it is given under, wherever the name stands: ``--header Authorization=…``,
``--api-key …``, ``--engine-arg=--api-key=…``, ``{"api_key": "…"}``, ``https://user:password@host``. Names are
compared by whole words, so that ``--tokenizer`` and ``--max-num-batched-tokens`` stay readable.
"""

import re
from collections.abc import Iterator, Sequence

REDACTED = "<redacted>"

_NAME = (
    r"(?:[\w.-]*[\W_])?"  # whole words before it: X-Api-Key
    r"(?:authorization|auth|bearer|cookie|credentials?|key|api-?key|passwd|password|secret|token)"
)
_NAMED_VALUE = re.compile(rf"(?is)^(?P<kept>{_NAME}\s*[=:]\s*)(?P<value>.+)$")
_SECRET_FLAG = re.compile(rf"(?i)^(?:--?[\w-]+=)*--?{_NAME}$")
_IN_JSON = re.compile(rf'(?i)(?P<kept>"{_NAME}"\s*:\s*)"(?:[^"\\]|\\.)*"')
_IN_QUERY = re.compile(rf"(?i)(?P<kept>[?&]{_NAME}=)[^&\s]+")
_USERINFO = re.compile(r"(?P<kept>\w://)[^/@\s]+@")
_BEARER = re.compile(r"(?i)\b(?P<kept>bearer\s+)[^\s\"']+")
_FLAG_WITH_VALUE = re.compile(r"(?s)^(?P<flag>--?[\w-]+=)(?P<value>.*)$")


def redact_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line with every credential replaced; redacting twice changes nothing more."""
    return tuple(_redacted(argv))


def redact_text(text: str) -> str:
    """One argument, or a URL, with the credentials that it names itself replaced."""
    if match := _NAMED_VALUE.match(text):
        return match["kept"] + REDACTED
    if match := _FLAG_WITH_VALUE.match(text):
        return match["flag"] + redact_text(match["value"])
    text = _USERINFO.sub(rf"\g<kept>{REDACTED}@", text)
    for pattern in (_IN_QUERY, _BEARER):
        text = pattern.sub(rf"\g<kept>{REDACTED}", text)
    return _IN_JSON.sub(rf'\g<kept>"{REDACTED}"', text)


def _redacted(argv: Sequence[str]) -> Iterator[str]:
    """A secret flag's value may be the next argument, or stand behind another wrapper flag."""
    awaiting_value = False
    for argument in argv:
        if _SECRET_FLAG.match(argument):
            awaiting_value = True
            yield argument
        elif awaiting_value and not _bare_flag(argument):
            awaiting_value = False
            flag = _FLAG_WITH_VALUE.match(argument)
            yield (flag["flag"] if flag else "") + REDACTED
        else:
            yield redact_text(argument)


def _bare_flag(argument: str) -> bool:
    return argument.startswith("--") and "=" not in argument
