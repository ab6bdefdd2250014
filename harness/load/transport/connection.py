"""One HTTP/1.1 connection over TCP: an asyncio protocol that brings a receiver what the server sends, read by read.

aiohttp hands each read through a stream, a reader and two tasks; here a read costs the parser (httptools, which is the
llhttp that aiohttp has too) and one time stamp.

Rule 1: one exchange at a time. Bytes that come without one, or after an answer, belong to no answer: the connection is
        closed, and the answer stands.
Rule 2: an answer without a length ends when the server closes the connection, and only then.
Rule 3: interim answers (1xx) are skipped, except 101, after which the connection is no longer HTTP.
Rule 4: the connection can be used again if both sides say so, and the server has taken the whole request.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import httptools

from harness.load.transport.gathering import Gathering

LARGEST_HEADER = 1 << 16
"""Bytes. Gateways add tokens and traces that exceed the usual 8 KiB."""
_MOST_HEADERS = 128
_LARGEST_HEAD = LARGEST_HEADER * _MOST_HEADERS
"""Bytes that may come one after another without any of a body: headers, interim answers, chunk extensions, trailers."""
_SWITCHING = 101


class Broken(ConnectionError):  # noqa: N818 - reads as what happened
    """The exchange ended before the answer did, or the answer is not HTTP."""


Feed = Callable[[Sequence[bytes], float], None]
"""Takes what one read of the connection brought of an answer's body, and when, in seconds. The pieces are the chunks of
HTTP's chunked coding, as the server wrote them: mostly one event each. The list is emptied afterwards."""


class Receiver(Protocol):
    """Takes an answer as it arrives. What it raises ends the exchange."""

    def head(self, status: int, headers: Mapping[str, str]) -> Feed:
        """Take the status and the headers, by name in lower case; returns what takes the body."""
        ...


class Connection(asyncio.Protocol):
    """One connection; ``now``: the clock, in seconds; ``gathering``: of all connections of the event loop."""

    def __init__(self, now: Callable[[], float], gathering: Gathering) -> None:
        self._now = now
        self._gathering = gathering
        self._pieces: list[bytes] = []
        # Called by the parser: for each chunk, no Python code runs.
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As in aiohttp: what servers and gateways get wrong without harm.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._transport: asyncio.Transport
        self._ended: asyncio.Future[bool] | None = None
        self._begin_answer(None)

    def _begin_answer(self, receiver: Receiver | None) -> None:
        self._receiver = receiver
        self._feed: Feed | None = None
        self._headers: dict[str, str] = {}
        self._header_count = self._without_body = 0
        self._status = 0
        self._in_body = self._interim = self._complete = self._surplus = self._keep_alive = False
        self._piece_count = 0

    # --- what the pool calls ---

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._parser is not None and not self._transport.is_closing()

    def exchange(self, request: bytes, receiver: Receiver) -> asyncio.Future[bool]:
        """Send a request. The result: whether the connection can be used again, when the whole answer has arrived.

        The future raises Broken, another OSError of the connection, or what the receiver raised.
        """
        self._begin_answer(receiver)
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._ended

    def close(self) -> None:
        """Close at once; what is not sent yet is dropped."""
        self._transport.abort()

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """One read: a time stamp, and the body's bytes for the receiver."""
        if self._ended is None or self._ended.done():
            self._transport.abort()
            return
        at = self._now()
        self._without_body += len(data)
        trouble = "its headers or trailers are too large" if self._without_body > _LARGEST_HEAD else ""
        try:
            if self._parser is not None and not trouble:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            trouble = self._trouble(error)
        try:
            if self._feed is None:
                self._take_head()
            if self._complete:
                del self._pieces[self._piece_count :]
            if self._pieces and self._feed is not None:
                self._feed(self._pieces, at)
                self._gathering.count(len(self._pieces))
                self._pieces.clear()
                self._without_body = 0
        except Exception as error:  # noqa: BLE001 - the caller of exchange gets it
            self._fail(error)
            return
        if self._complete:
            self._ended.set_result(self._is_reusable())
        elif trouble:
            self._fail(Broken(trouble))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by the server or because of an error."""
        self._parser = None
        if exc is None and self._in_body and self._ends_with_connection():
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(False)
        else:
            self._fail(exc or Broken("the server closed the connection before the end of its answer"))
        self._receiver = None

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        """An answer begins; a second one, if the first is complete."""
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer, or of its trailer."""
        if self._in_body or self._surplus:
            return
        self._header_count += 1
        if self._header_count > _MOST_HEADERS or len(name) + len(value) > LARGEST_HEADER:
            raise Broken(f"more than {_MOST_HEADERS} headers, or one of more than {LARGEST_HEADER} bytes")
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        """The head has arrived."""
        if self._parser is None or self._surplus:
            return
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200 and status != _SWITCHING
        if self._interim:
            self._headers = {}
        else:
            self._status = status

    def on_message_complete(self) -> None:
        """The whole answer has arrived."""
        if self._parser is None or self._interim or self._surplus:
            return
        self._complete = True
        self._piece_count = len(self._pieces)
        self._keep_alive = self._parser.should_keep_alive()

    # --- the rest ---

    def _trouble(self, error: Exception) -> str:
        """Why the answer is not HTTP; empty if it is."""
        if isinstance(error, httptools.HttpParserUpgrade):
            return "" if self._complete else "the server left HTTP"
        return str(error.__context__ or error) or type(error).__name__

    def _take_head(self) -> None:
        """Give the receiver the head, if it has arrived."""
        if self._status and self._receiver is not None:
            self._in_body = True
            self._feed = self._receiver.head(self._status, self._headers)

    def _is_reusable(self) -> bool:
        idle = not self._transport.is_closing() and self._transport.get_write_buffer_size() == 0
        return self._keep_alive and not self._surplus and idle and self._status != _SWITCHING

    def _ends_with_connection(self) -> bool:
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        return not chunked and "content-length" not in self._headers

    def _fail(self, error: Exception) -> None:
        self._transport.abort()
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)
