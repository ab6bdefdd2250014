"""A server's answer as it arrives. No I/O.

An answer ends as its headers say: after a counted length, with the last chunk, or with the connection. Anything else is
a failure, and so are bytes that are no answer; the parser is llhttp in its strict mode.
"""

import asyncio
from typing import Protocol

import httptools

from harness.proxy.headers import Header, by_name

MAX_HEAD_BYTES = 256 << 10
"""Of an answer's headers, its trailers, and what is between two parts of a chunked body."""
MAX_WHOLE_BYTES = 64 << 20
"""Of a body that is read whole: prefill's, which has one token and the ids of the prompt's blocks."""
_BODILESS = {204, 304}


class Broken(Exception):  # noqa: N818 - reads as what happened
    """The answer did not arrive whole."""


class Sink(Protocol):
    """Takes a body as it arrives."""

    def __call__(self, body: bytes, *, ended: bool) -> None:
        """Take a part, and the end if it has come."""


class Carrier(Protocol):
    """The connection on which an answer arrives."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Go on reading."""

    def abort(self) -> None:
        """Close at once."""


class Answer:
    """One answer. ``close`` gives up the rest of it."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._excess: int | None = None
        # The parser calls this for each chunk, and a stream may have one for each token.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._head_is_here = False
        self._ends_with_connection = False
        self._without_progress = 0
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self.ended = False
        """Whether the whole answer has arrived."""
        self.reusable = True
        """Whether the connection can carry a further request once the answer has ended."""

    # --- called by the connection ---

    def feed(self, data: bytes) -> None:
        """Take bytes from the server."""
        before = len(self._parts)
        self._without_progress += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(error)
        if len(self._parts) > before:
            self._without_progress = 0
        if self._without_progress > MAX_HEAD_BYTES:
            self._refuse(Broken(f"headers of more than {MAX_HEAD_BYTES} bytes"))
        self._progress()

    def lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        if self._head_is_here and self._ends_with_connection and error is None:
            self.ended = True
        self._refuse(error or Broken("the connection was closed"))
        self._progress()

    def _refuse(self, error: BaseException) -> None:
        self.reusable = False
        if not self.ended and self._failure is None:
            self._failure = error

    def _progress(self) -> None:
        """Hand on what has arrived, and wake who waits."""
        if self._sink is not None:
            self._hand_on(self._sink)
        if self._waiter is not None and not self._waiter.done() and self._is_awaited():
            self._waiter.set_result(None)

    def _is_awaited(self) -> bool:
        if self._sink is not None:
            return self.over
        return self._head_is_here or self._failure is not None

    def _hand_on(self, sink: Sink) -> None:
        parts = self._parts
        if self._excess is not None:
            del parts[self._excess :]
        if parts or self.ended:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            sink(body, ended=self.ended)

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        """A message begins: the answer, an interim one, or one that nobody asked for."""
        # A second answer to one request.
        if self.ended and self._excess is None:
            self.reusable = False
            self._excess = len(self._parts)

    def on_status(self, reason: bytes) -> None:
        """A part of the status line's text."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header or trailer."""
        # Neither trailers nor a second answer's headers.
        if not self._head_is_here:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self._head_is_here:
            return
        self.status = status = self._parser.get_status_code()
        if status < 200:
            # An answer like 103 precedes the answer. The parser refuses 101, another protocol that nobody asked for.
            self.headers, self.reason = [], b""
            return
        self._without_progress = 0
        self._head_is_here = True
        self.reusable = self.reusable and self._parser.should_keep_alive()
        named = by_name(self.headers)
        coding = named.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse(Broken("its transfer coding is not chunked"))
        self._ends_with_connection = coding is None and b"content-length" not in named and status not in _BODILESS

    def on_message_complete(self) -> None:
        """The end of a message."""
        if self._head_is_here and self._failure is None:
            self.ended = True

    # --- for who asked ---

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.ended or self._failure is not None

    async def head(self) -> None:
        """Wait for status and headers. Raises Broken, or the connection's error."""
        if not self._is_awaited():
            await self._wait()
        self._raise_failure()

    async def flow(self, sink: Sink) -> None:
        """Hand the body to ``sink`` as it arrives, until its end. Raises Broken, or the connection's error.

        ``sink`` is first called when a part of the body or the end is there.
        """
        self._sink = sink
        self._hand_on(sink)
        if not self.over:
            await self._wait()
        self._raise_failure()

    async def whole(self) -> bytes:
        """The whole body, of at most ``MAX_WHOLE_BYTES``. Raises like ``flow``."""
        whole = bytearray()
        too_long = Broken(f"a body of more than {MAX_WHOLE_BYTES} bytes")

        def collect(body: bytes, *, ended: bool) -> None:
            whole.extend(body)
            if len(whole) > MAX_WHOLE_BYTES and not ended:
                self.close()
                self._refuse(too_long)

        await self.flow(collect)
        if len(whole) > MAX_WHOLE_BYTES:
            raise too_long
        return bytes(whole)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _raise_failure(self) -> None:
        if self._failure is not None and not self.ended:
            raise self._failure

    def close(self) -> None:
        """Give up what has not arrived: the server's connection is closed, and the server stops its work."""
        self._sink = None
        if not self.over:
            self._carrier.abort()

    def pause(self) -> None:
        """Let the rest wait at the server."""
        if not self.over:
            self._carrier.pause()

    def resume(self) -> None:
        """Let the rest come."""
        if not self.over:
            self._carrier.resume()
