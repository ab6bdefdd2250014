"""Replaces credentials on the command line, which must not be stored.

A credential is recognized by its *name*: ``--header Authorization=…``, ``--api-key …``, ``--engine-arg=--api-key=…``,
``{"api_key": "…"}``; or by its place in a URL: ``https://user:password@host``. :mod:`harness.redact` has the names.
"""

import re
from collections.abc import Iterator, Sequence

from harness.redact import NAME, REDACTED, redact_text

_NAMED_VALUE = re.compile(rf"(?is)^(?P<kept>{NAME}\s*[=:]\s*)(?P<value>.+)$")
_SECRET_FLAG = re.compile(rf"(?i)^(?:--?[\w-]+=)*--?{NAME}$")
_FLAG_WITH_VALUE = re.compile(r"(?s)^(?P<flag>--?[\w-]+=)(?P<value>.*)$")


def redact_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line with every credential replaced; a second call changes nothing more."""
    return tuple(_redacted(argv))


def _redacted(argv: Sequence[str]) -> Iterator[str]:
    """A secret flag's value may be the next argument, also within another flag (``--engine-arg=VALUE``)."""
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
            yield redact_argument(argument)


def redact_argument(text: str) -> str:
    """One argument, with each credential replaced whose name is in the same argument."""
    if match := _NAMED_VALUE.match(text):
        return match["kept"] + REDACTED
    if match := _FLAG_WITH_VALUE.match(text):
        return match["flag"] + redact_argument(match["value"])
    return redact_text(text)


def _bare_flag(argument: str) -> bool:
    return argument.startswith("--") and "=" not in argument
