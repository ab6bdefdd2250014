"""A connection from a client: its requests are handled one after another, and each answer is written as it comes.

Rule 1. A client that leaves is not an error: nothing is logged above INFO. The connection's end cancels the handler of
the request in progress; if a write finds the connection closing, ``ClientGone`` is raised. A client that closes only
its sending half has left as well: it no longer waits for an answer.

Rule 2. A client that reads slowly is waited for: while its buffer is full, nothing is read from the server whose
answer it gets. Of requests that a client sends before their turn, few are kept.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, cast

from harness.proxy.headers import Header
from harness.proxy.incoming import Incoming
from harness.proxy.outgoing import Outgoing
from harness.proxy.page import Page
from harness.proxy.request import Request

log = logging.getLogger(__name__)

Handler = Callable[[Request, "ClientConnection"], Awaitable[None]]
"""Answers one request."""

IDLE_S = 3600.0
"""A connection without a request is closed after this time: late, since a client may send into the closing one."""
HEAD_S = 60.0
"""The headers of a request must arrive within this time."""
LINGER_S = 2.0
"""How long a client may go on sending what is not read, before the connection is closed under it."""
_MOST_WAITING = 8
"""Requests that may wait for their turn before no more is read."""


class ClientGone(Exception):  # noqa: N818 - reads as what happened
    """The client closed its connection, or its sending half: it no longer waits for an answer."""


class Source(Protocol):
    """Where an answer comes from."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Go on reading."""


class ClientConnection(asyncio.Protocol):
    """One connection. ``handle`` answers a request; ``gone`` is called when the connection has ended."""

    def __init__(self, handle: Handler, gone: Callable[["ClientConnection"], None]) -> None:
        self._handle = handle
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._incoming = Incoming(self._arrived)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._outgoing: Outgoing | None = None
        self._source: Source | None = None
        self._full = False
        self._missed = False
        self.closed = self._loop.create_future()
        """Done once the connection has ended."""
        self._room: asyncio.Future[None] | None = None
        self._lingers = False
        self.stopping = False
        """Whether the connection ends with the answer in progress."""
        self.since = self._loop.time()
        """When the last answer ended or a request's first byte arrived, on the loop's clock."""

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # uvloop's transport is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._lingers:
            return
        if self._task is None and self._incoming.between_requests:
            self.since = self._loop.time()
        self._incoming.feed(data)
        if len(self._waiting) > _MOST_WAITING:
            self._transport.pause_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has left, or the proxy has closed the connection."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self._gone(self)
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The client reads more slowly than its answer arrives."""
        self._full = True
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        """The client has read most of what was sent."""
        self._full = False
        if self._source is not None:
            self._source.resume()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # --- requests in turn ---

    def _arrived(self, request: Request) -> None:
        if self._task is None:
            self._start(request)
        else:
            self._waiting.append(request)

    def _start(self, request: Request) -> None:
        self._task = self._loop.create_task(self._handle_request(request))

    async def _handle_request(self, request: Request) -> None:
        try:
            await self._handle(request, self)
        except ClientGone:
            self._transport.abort()
        finally:
            self._end(request)

    def _end(self, request: Request) -> None:
        outgoing, self._outgoing, self._source, self._task = self._outgoing, None, None, None
        self.since = self._loop.time()
        if self._transport.is_closing():
            return
        if outgoing is None or outgoing.closes or self._is_last:
            self._finish(request)
        elif self._waiting:
            self._start(self._waiting.popleft())
            if len(self._waiting) == _MOST_WAITING:
                self._transport.resume_reading()

    @property
    def _is_last(self) -> bool:
        """Whether no further request will be answered."""
        return self.stopping or (self._incoming.closed and not self._waiting)

    def _finish(self, request: Request) -> None:
        """Close after the answer. What is still sent is read first: else it would destroy the answer on its way."""
        if request.whole:
            self._transport.close()
            return
        self._lingers = True
        self._loop.call_later(LINGER_S, self._transport.abort)
        with contextlib.suppress(OSError, NotImplementedError):
            self._transport.write_eof()

    # --- for handlers ---

    async def read_body(self, request: Request) -> bytes:
        """The body. Raises RejectedRequest if it contradicts its headers."""
        if request.expects_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await request.body()

    def begin(self, request: Request, status: int, reason: bytes | None, headers: Iterable[Header]) -> None:
        """Begin an answer; its head is sent with the first part of its body."""
        closes = not (request.keep_alive and request.whole) or self._is_last
        self._outgoing = Outgoing(request, status, reason, headers, closes=closes)

    def send(self, body: bytes, *, ended: bool) -> None:
        """Send a part of the answer, or its end; ``drained`` tells if that was not possible."""
        if self._transport.is_closing():
            self._missed = True
        elif self._outgoing is not None and (taken := self._outgoing.take(body, ended=ended)):
            self._transport.write(taken)

    def follow(self, source: Source) -> None:
        """Pause this source of the answer while the client does not read."""
        self._source = source
        if self._full:
            source.pause()

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent. Raises ClientGone."""
        if self._missed:
            raise ClientGone
        if self._full:
            self._room = self._loop.create_future()
            await self._room

    async def show(self, request: Request, page: Page, headers: Iterable[Header] = ()) -> None:
        """Send a whole answer of the proxy's own. Raises ClientGone."""
        counted = (b"Content-Type", page.content_type), (b"Content-Length", b"%d" % len(page.body))
        self.begin(request, page.status, None, [*headers, *counted])
        self.send(page.body, ended=True)
        await self.drained()

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the answer in progress was sent."""
        return self._outgoing is not None and self._outgoing.begun

    def cut(self) -> None:
        """Close the connection before the end of the answer, so that the client does not take it for a complete one."""
        if self._transport.is_closing():
            return
        if self._outgoing is not None and self._outgoing.until_close:
            # An orderly close would mean that the body is complete. struct linger: on, for zero seconds.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            # The server's bytes still arrive at the client, but no end of the body.
            self._transport.close()

    # --- for the server ---

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The handler of the request in progress."""
        return self._task

    def close_if_idle(self, now: float) -> None:
        """Close a connection on which no request has arrived for too long."""
        if self._task is None and now - self.since > (IDLE_S if self._incoming.between_requests else HEAD_S):
            self._transport.close()

    def stop(self) -> None:
        """Close at once if no request is in progress, else after its answer."""
        self.stopping = True
        if self._task is None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is in progress."""
        self._transport.abort()
