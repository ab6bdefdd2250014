"""How an answer is framed for the client. No I/O.

The head is written with the first bytes of the body, and the end of the body with its last: an answer that arrives in
one read leaves in one write.
"""

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import time

from harness.proxy.headers import Header, by_name, written
from harness.proxy.request import Request

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_BODILESS = {204, 304}
_LAST_CHUNK = b"0\r\n\r\n"


class Outgoing:
    """The bytes of one answer, in three framings: of counted length, chunked, or ended by the end of the connection."""

    __slots__ = ("_bodiless", "_chunked", "_head", "begun", "closes", "until_close")

    def __init__(
        self,
        request: Request,
        status: int,
        reason: bytes | None,
        headers: Iterable[Header],
        *,
        closes: bool,
    ) -> None:
        headers = list(headers)
        named = by_name(headers)
        self._bodiless = request.method == "HEAD" or status in _BODILESS
        unknown_length = b"content-length" not in named and not self._bodiless
        self._chunked = unknown_length and request.version == "1.1"
        self.until_close = unknown_length and not self._chunked
        """Whether the end of the connection is the end of the body."""
        self.closes = closes or self.until_close
        """Whether the connection ends after this answer."""
        self.begun = False
        """Whether any byte was taken."""
        if b"date" not in named:
            headers.append((b"Date", _date()))
        if self._chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
        if self.closes:
            headers.append((b"Connection", b"close"))
        elif request.version == "1.0":
            headers.append((b"Connection", b"keep-alive"))
        phrase = reason or _PHRASES.get(status, b"")
        self._head = b"HTTP/%b %d %b\r\n%b\r\n" % (request.version.encode(), status, phrase, written(headers))

    def take(self, body: bytes, *, ended: bool) -> bytes:
        """The bytes to send for a further part of the body, and for its end."""
        if self._bodiless:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if ended:
                body += _LAST_CHUNK
        if self.begun:
            return body
        self.begun = True
        return self._head + body


_stamped: tuple[int, bytes] = 0, b""


def _date() -> bytes:
    """The time of now as RFC 9110 wants it (5.6.7), made anew once a second."""
    global _stamped  # noqa: PLW0603 - a cache of one value
    now = int(time())
    if _stamped[0] != now:
        _stamped = now, formatdate(now, usegmt=True).encode()
    return _stamped[1]
