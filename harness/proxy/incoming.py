"""Bytes from a client, parsed into requests. No I/O.

The parser is llhttp in its strict mode. It refuses what two servers could read as two different requests (request
smuggling): Content-Length together with Transfer-Encoding, repeated or odd lengths, headers continued on a second
line, bare line feeds, odd chunk sizes. This module refuses what llhttp leaves to its user: other transfer codings than
``chunked``, other versions than 1.0 and 1.1, and everything that is too large. Nothing after a refused byte is read.
"""

from collections.abc import Callable

import httptools

from harness.proxy.errors import one_line
from harness.proxy.headers import Header
from harness.proxy.request import Request

MAX_HEAD_BYTES = 64 << 10
"""Of a request line with all headers, of a chunked body's trailers, and of what is between two parts of such a body."""
# A prompt of a million tokens is about 10 MB; images come as base64. The servers have their own limits.
MAX_BODY_BYTES = 1 << 30
_VERSIONS = {"1.0", "1.1"}


class Incoming:
    """The requests on one connection, in order. ``arrived`` is called when a request's headers have arrived."""

    def __init__(self, arrived: Callable[[Request], None]) -> None:
        self._arrived = arrived
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[Header] = []
        self._head_bytes = 0
        # Bytes since the last progress: this bounds headers, trailers and chunk extensions that never end.
        self._without_progress = 0
        self._request: Request | None = None
        self._begun = False
        self.closed = False
        """Whether no further request is read, since one was refused or asked for another protocol."""

    @property
    def between_requests(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return not self._begun

    def feed(self, data: bytes) -> None:
        """Take bytes from the client; what is wrong with them is said to the request that they belong to."""
        if self.closed:
            return
        self._without_progress += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request itself is served as if it did not ask for another protocol (RFC 9110, 7.8).
            self.closed = True
        except httptools.HttpParserError as error:
            self._refuse(400, f"These bytes are not HTTP: {one_line(error)}.")
        if self._without_progress > MAX_HEAD_BYTES:
            self._refuse(431, f"The headers are longer than {MAX_HEAD_BYTES} bytes.")

    def _refuse(self, status: int, message: str) -> None:
        # What was refused already, and bytes after a connection's last request, need no second answer.
        if self.closed:
            return
        self.closed = True
        if self._request is not None:
            self._request.fail(status, message)
        else:
            self._arrived(Request.refused(status, message))

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._begun = True
        self._target, self._headers, self._head_bytes = b"", [], 0

    def on_url(self, part: bytes) -> None:
        """A part of the request line's target."""
        self._target += part
        self._head_bytes += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header or trailer."""
        # Trailers are not forwarded.
        if self._request is None:
            self._headers.append((name, value.rstrip(b" \t")))
            self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self.closed:
            return
        version = self._parser.get_http_version()
        request = Request(
            self._parser.get_method().decode(), self._target, version, self._headers, self._parser.should_keep_alive()
        )
        if refusal := self._refusal(request, version):
            self._refuse(*refusal)
            return
        self._without_progress = 0
        self._request = request
        self._arrived(request)

    def _refusal(self, request: Request, version: str) -> tuple[int, str] | None:
        if version not in _VERSIONS:
            return 505, f"HTTP {version} is not spoken here."
        if self._head_bytes > MAX_HEAD_BYTES:
            return 431, f"The headers are longer than {MAX_HEAD_BYTES} bytes."
        if request.named.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            return 400, "Of the transfer codings only chunked is known."
        if int(request.named.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            return 413, f"The body is longer than {MAX_BODY_BYTES} bytes."
        return None

    def on_body(self, part: bytes) -> None:
        """A part of the body, without its framing."""
        self._without_progress = 0
        if self._request is not None and not self.closed and self._request.add(part) > MAX_BODY_BYTES:
            self._refuse(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._without_progress = 0
        self._begun = False
        if self._request is None or self.closed:
            return
        self._request.complete()
        self._request = None
