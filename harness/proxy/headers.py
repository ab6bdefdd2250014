"""Which headers the proxy forwards. No I/O.

Every header of client and server goes through (``Authorization``, trace headers, ...), except those that belong to one
connection (RFC 9110, 7.6.1) or describe bytes that the proxy changes.
"""

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from harness.proxy.contract import RejectedRequest

_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

REQUEST_ID = "X-Request-Id"
PREFILL = "X-PD-Prefill"
"""Response header: URL of the server that prefilled."""
DECODE = "X-PD-Decode"
"""Response header: URL of the server that decoded."""
PREFILL_FIRST = "X-PD-Prefill-First"
"""Response header: what P says about the first output token, as JSON (first_token.py)."""

_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
# The proxy answers ``Expect: 100-continue`` itself, and the body it sends is decoded and of another length.
_REQUEST_ONLY = frozenset({"host", "content-length", "content-encoding", "expect", "accept-encoding"})


def request_headers(headers: Mapping[str, str], request_id: str | None = None) -> CIMultiDict[str]:
    """The client's headers for P and D, with the id for both. Raises RejectedRequest for unforwardable characters."""
    forwarded = _without(headers.items(), _HOP_BY_HOP | _REQUEST_ONLY | _nominated(headers))
    # vLLM refuses a body of any other type.
    forwarded.setdefault("Content-Type", "application/json")
    # A compressor between server and proxy would hold tokens back until its window is full.
    forwarded["Accept-Encoding"] = "identity"
    if request_id is not None:
        forwarded[REQUEST_ID] = request_id
    for name, value in forwarded.items():
        if not writable(value):
            raise RejectedRequest(f"The header {name} holds control characters, or is not UTF-8.", name)
    return forwarded


def response_headers(headers: Mapping[str, str], own: Mapping[str, str]) -> CIMultiDict[str]:
    """A server's headers for the client; the proxy's own replace those of the same name.

    Content-Length stays, because the bytes are unchanged, unless the body is chunked (RFC 9112, 6.3). Headers that
    cannot be forwarded are left out, and so is a server's ``PREFILL_FIRST``: a reader would take it for P's word.
    """
    dropped = {PREFILL_FIRST.lower()} | ({"content-length"} if "Transfer-Encoding" in headers else set())
    kept = ((name, value) for name, value in headers.items() if writable(value))
    forwarded = _without(kept, _HOP_BY_HOP | _nominated(headers) | dropped)
    forwarded.update(own)
    return forwarded


def _without(items: Iterable[tuple[str, str]], names: frozenset[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in items if name.lower() not in names)


def writable(value: str) -> bool:
    """Whether the value may stand in a header: UTF-8 (other bytes were read as surrogates), no control characters."""
    return _UNWRITABLE.search(value) is None


def _nominated(headers: Mapping[str, str]) -> frozenset[str]:
    """Names that the ``Connection`` header declares to belong to this connection only."""
    connection = headers.get("Connection")
    return frozenset(name.strip().lower() for name in connection.split(",")) if connection else frozenset()
