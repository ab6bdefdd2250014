"""Which headers the proxy forwards, and how headers are written. No I/O.

Every header of client and server goes through (``Authorization``, trace headers, ...), except those that belong to one
connection (RFC 9110, 7.6.1) or describe bytes that the proxy changes. Names and values are bytes as they arrived: what
is only passed on is not decoded.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from harness.proxy.contract import RejectedRequest

Header = tuple[bytes, bytes]
"""Name and value."""

REQUEST_ID = b"X-Request-Id"
PREFILL = b"X-PD-Prefill"
"""Response header: URL of the server that prefilled."""
DECODE = b"X-PD-Decode"
"""Response header: URL of the server that decoded."""
PREFILL_FIRST = b"X-PD-Prefill-First"
"""Response header: what P says about the first output token, as JSON (first_token.py)."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
# The proxy answers ``Expect: 100-continue`` itself, and the body it sends is decoded and of another length.
_REPLACED = frozenset({b"host", b"content-length", b"content-encoding", b"expect", b"accept-encoding"})
_NOT_OF_REQUESTS = _HOP_BY_HOP | _REPLACED
_NOT_OF_ANSWERS = _HOP_BY_HOP | {PREFILL_FIRST.lower()}
# A compressor between server and proxy would hold tokens back until its window is full.
_UNCOMPRESSED = (b"Accept-Encoding", b"identity")
# vLLM refuses a body of any other type.
_JSON = (b"Content-Type", b"application/json")


def by_name(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """Values by name in lower case; the values of a repeated header are joined by commas (RFC 9110, 5.3)."""
    named: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        named[key] = named[key] + b", " + value if key in named else value
    return named


def request_headers(headers: Sequence[Header], request_id: bytes | None = None) -> list[Header]:
    """The client's headers for P and D, with the id for both. Raises RejectedRequest for unforwardable characters."""
    named = by_name(headers)
    dropped = _NOT_OF_REQUESTS | _nominated(named)
    if request_id is not None:
        dropped |= {REQUEST_ID.lower()}
    forwarded = [header for header in headers if header[0].lower() not in dropped]
    for name, value in forwarded:
        if not writable(value):
            raise RejectedRequest(
                f"The header {name.decode()} holds control characters, or is not UTF-8.", name.decode()
            )
    forwarded.append(_UNCOMPRESSED)
    if b"content-type" not in named:
        forwarded.append(_JSON)
    if request_id is not None:
        forwarded.append((REQUEST_ID, request_id))
    return forwarded


def response_headers(headers: Sequence[Header], own: Mapping[bytes, bytes]) -> list[Header]:
    """A server's headers for the client; the proxy's own replace those of the same name.

    Content-Length stays, because the bytes are unchanged, unless the body is chunked (RFC 9112, 6.3). Headers that
    cannot be forwarded are left out, and so is a server's ``PREFILL_FIRST``: a reader would take it for P's word.
    """
    named = by_name(headers)
    dropped = _NOT_OF_ANSWERS | _nominated(named) | {name.lower() for name in own}
    if b"transfer-encoding" in named:
        dropped |= {b"content-length"}
    return [header for header in headers if header[0].lower() not in dropped and writable(header[1])] + [*own.items()]


def without(headers: Sequence[Header], name: bytes) -> list[Header]:
    """The headers less those of one name, given in lower case."""
    return [header for header in headers if header[0].lower() != name]


def written(headers: Iterable[Header]) -> bytes:
    """The headers' lines."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def writable(value: bytes) -> bool:
    """Whether the value may stand in a header: UTF-8, no control characters but tabs."""
    if _CONTROL.search(value) is not None:
        return False
    try:
        return value.isascii() or bool(value.decode())
    except UnicodeDecodeError:
        return False


def _nominated(named: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Names that the ``Connection`` header declares to belong to this connection only."""
    connection = named.get(b"connection")
    return frozenset(name.strip().lower() for name in connection.split(b",")) if connection else frozenset()
