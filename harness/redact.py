"""Finds and replaces credentials in URLs, query strings and headers, for every room that shows, stores or logs text.

Requests are sent with the full URL. ``redact_url`` makes a URL fit to be shown, ``redact_text`` a text that may contain
URLs or headers. Names are compared by whole words, so that ``tokenizer=`` and ``max_tokens=`` stay readable. Pure.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.facts import Deployment

REDACTED = "<redacted>"
_SHORTEST_SECRET = 4
"""A value of fewer characters is not treated as a credential: it would be found in every text."""
_LONG = 8
"""The value of any header may be a credential from this length on; a shorter value is a plain name, as of a tenant."""

NAME = (
    # Whole words may come first: X-Api-Key.
    r"(?:[\w.-]*[\W_])?"
    r"(?:authorization|auth|bearer|cookie|credentials?|key|api-?key|jwt|passphrase|passwd|password|pwd|secret"
    r"|sig|signature|token)"
)
"""A pattern of the names under which credentials are given. Use it with the case ignored."""

# Up to the last @ of the word, since a password may contain an @; an @ in the path makes a part of the path disappear.
_USERINFO = re.compile(r'(?P<kept>\w://)[^\s"]*@')
_PATTERNS = (
    re.compile(rf"(?i)(?P<kept>[?&]{NAME}=)[^&\s\"']+"),
    re.compile(r"(?i)\b(?P<kept>bearer\s+)[^\s\"']+"),
    re.compile(r"(?i)(?P<kept>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|digest|token)\s+)?)[^\s\"',)]+"),
)
_IN_JSON = re.compile(rf'(?i)(?P<kept>"{NAME}"\s*:\s*)"(?:[^"\\]|\\.)*"')


def redact_text(text: str) -> str:
    """A text with every credential in a URL or a header replaced; a second call changes nothing more."""
    text = _USERINFO.sub(rf"\g<kept>{REDACTED}@", text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<kept>{REDACTED}", text)
    return _IN_JSON.sub(rf'\g<kept>"{REDACTED}"', text)


def redact_url(url: str) -> str:
    """A URL without user, password and query, fit to be shown. It need not be a valid URL.

    Everything before the last @ is removed: it may be part of a password that is not encoded (``user:pa/ss@host``).
    """
    scheme, rest = _parts(url)
    _, userinfo, rest = rest.rpartition("@")
    place, query, _ = rest.partition("?") if "?" in rest else rest.partition("#")
    return scheme + (f"{REDACTED}@" if userinfo else "") + place + (f"?{REDACTED}" if query else "")


def secrets_of(headers: Mapping[str, str], urls: Iterable[str] = ()) -> tuple[str, ...]:
    """The credentials in requests' headers and URLs, which some servers repeat in error messages; the longest first."""
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
    """A text without these secrets (longest first), nor a secret's beginning at its end: texts may be clipped there."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for secret in secrets:
        for length in range(len(secret) - 1, _SHORTEST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + REDACTED
    return text


def _of_userinfo(userinfo: str) -> set[str]:
    """The password as written and decoded, and user and password as HTTP's basic authentication encodes them."""
    user, _, password = userinfo.partition(":")
    basic = b64encode(f"{_decoded(user)}:{_decoded(password)}".encode()).decode()
    return {password, _decoded(password), basic} if userinfo else set()


def _decoded(text: str) -> str:
    """The text with its percent-encoding resolved."""
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")


def redact_deployment(deployment: Deployment) -> Deployment:
    """A deployment's facts, fit to be shown and stored: without the credentials that requests need."""
    servers = tuple(replace(server, url=redact_url(server.url)) for server in deployment.servers)
    return replace(deployment, proxy_url=deployment.proxy_url and redact_url(deployment.proxy_url), servers=servers)


def _parts(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme + separator, rest) if separator else ("", url)
