"""What must not be shown: credentials in URLs, in query strings and in headers. Pure.

The one place where they are found, for every room that shows, stores or logs a text. A server's URL keeps its
credentials where it is asked; ``redact_url`` is how it is shown, ``redact_text`` how any sentence is that a URL or a
header may stand in. Names are compared by whole words, so that ``tokenizer=`` and ``max_tokens=`` stay readable.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.facts import Deployment

REDACTED = "<redacted>"
_SHORTEST_SECRET = 4
"""A value of fewer characters is no credential, and would be found everywhere."""
_LONG = 8
"""A header of any name may hold a credential of so many characters; shorter ones are names, as of a tenant."""

NAME = (
    r"(?:[\w.-]*[\W_])?"  # whole words before it: X-Api-Key
    r"(?:authorization|auth|bearer|cookie|credentials?|key|api-?key|jwt|passphrase|passwd|password|pwd|secret"
    r"|sig|signature|token)"
)
"""A pattern: names under which credentials are given; for use where case does not matter."""

# Up to the last @ of the word, since a password may hold one. More than the credentials goes where a path has an @.
_USERINFO = re.compile(r'(?P<kept>\w://)[^\s"]*@')
_PATTERNS = (
    re.compile(rf"(?i)(?P<kept>[?&]{NAME}=)[^&\s\"']+"),
    re.compile(r"(?i)\b(?P<kept>bearer\s+)[^\s\"']+"),
    re.compile(r"(?i)(?P<kept>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|digest|token)\s+)?)[^\s\"',)]+"),
)
_IN_JSON = re.compile(rf'(?i)(?P<kept>"{NAME}"\s*:\s*)"(?:[^"\\]|\\.)*"')


def redact_text(text: str) -> str:
    """A text with every credential replaced that a URL or a header in it shows; twice changes nothing more."""
    text = _USERINFO.sub(rf"\g<kept>{REDACTED}@", text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<kept>{REDACTED}", text)
    return _IN_JSON.sub(rf'\g<kept>"{REDACTED}"', text)


def redact_url(url: str) -> str:
    """A URL as it may be shown: without user and password, without its query. Also of what is no valid URL.

    Whatever stands before the last @ may be part of a password that nobody encoded (``user:pa/ss@host``).
    """
    scheme, rest = _parts(url)
    _, userinfo, rest = rest.rpartition("@")
    place, query, _ = rest.partition("?") if "?" in rest else rest.partition("#")
    return scheme + (f"{REDACTED}@" if userinfo else "") + place + (f"?{REDACTED}" if query else "")


def secrets_of(headers: Mapping[str, str], urls: Iterable[str] = ()) -> tuple[str, ...]:
    """What must not be shown of what is sent with every request; longest first, so that none leaves a part of another.

    Some servers repeat it in their words.
    """
    found = {
        part
        for name, value in headers.items()
        if len(value) >= _LONG or re.fullmatch(f"(?i){NAME}", name)
        for part in (value, value.rpartition(" ")[2])
    }
    for url in urls:
        found.update(_of_userinfo(_parts(url)[1].rpartition("@")[0]))
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST_SECRET), key=len, reverse=True))


def redact_secrets(text: str, secrets: Sequence[str]) -> str:
    """A text without these; also where it ends within one, since words are clipped."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for secret in secrets:
        for length in range(len(secret) - 1, _SHORTEST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + REDACTED
    return text


def _of_userinfo(userinfo: str) -> set[str]:
    """The password, as it is written and as it is meant, and what HTTP makes of the two."""
    user, _, password = userinfo.partition(":")
    basic = b64encode(f"{_decoded(user)}:{_decoded(password)}".encode()).decode()
    return {password, _decoded(password), basic} if userinfo else set()


def _decoded(text: str) -> str:
    """Without percent-encoding."""
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")


def redact_deployment(deployment: Deployment) -> Deployment:
    """A deployment's facts as they may be shown and stored; who asks its servers keeps the others."""
    servers = tuple(replace(server, url=redact_url(server.url)) for server in deployment.servers)
    return replace(deployment, proxy_url=deployment.proxy_url and redact_url(deployment.proxy_url), servers=servers)


def _parts(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme + separator, rest) if separator else ("", url)
