"""Connections to one server, which are kept for further requests.

vLLM's HTTP server (uvicorn) closes a connection that was idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). A pool that keeps
connections longer sometimes sends a request into a closing one, and a POST without an answer must not be sent again,
since it may have been served. So the pool closes idle connections first, and no POST is ever sent twice.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from typing import cast

from harness.proxy.answer import Answer

KEEPALIVE_S = 2.0
CONNECT_TIMEOUT_S = 10.0


class Pool:
    """Idle connections, the one used last in front. Without a limit: the clients choose the load."""

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._idle: deque[ServerConnection] = deque()
        self._in_use: set[ServerConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def take(self, *, fresh: bool = False) -> "ServerConnection":
        """A connection for one request. Raises OSError (TimeoutError included) if none can be made."""
        if self._idle and not fresh:
            connection = self._idle.popleft()
            connection.reused = True
        else:
            connection = await self._connect()
        self._in_use.add(connection)
        return connection

    async def _connect(self) -> "ServerConnection":
        loop = asyncio.get_running_loop()
        if self._tls and self._context is None:
            self._context = ssl.create_default_context()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: ServerConnection(self), self._host, self._port, ssl=self._context
            )
        return connection

    def give(self, connection: "ServerConnection") -> None:
        """Take back a connection whose answer has ended."""
        self._in_use.discard(connection)
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.appendleft(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(KEEPALIVE_S, self._close_idle)

    def forget(self, connection: "ServerConnection") -> None:
        """A connection has ended."""
        self._in_use.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._idle and now - self._idle[-1].idle_since >= KEEPALIVE_S:
            self._idle.pop().abort()
        if self._idle:
            self._sweep = loop.call_at(self._idle[-1].idle_since + KEEPALIVE_S, self._close_idle)

    async def close(self) -> None:
        """Close every connection, and wait until they are closed."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        connections = [*self._idle, *self._in_use]
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in connections))


class ServerConnection(asyncio.Protocol):
    """One connection to a server, which carries one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._answer: Answer | None = None
        self._paused = False
        self.closed = asyncio.get_running_loop().create_future()
        """Done once the connection has ended."""
        self.reused = False
        """Whether it carried a request before."""
        self.idle_since = 0.0
        """On the loop's clock."""

    def ask(self, request: bytes) -> Answer:
        """Send a request; its answer arrives from then on."""
        self._answer = answer = Answer(self)
        if self._transport.is_closing():
            answer.lost(None)
        else:
            self._transport.write(request)
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # uvloop's transport is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        answer = self._answer
        if answer is None:
            # Nobody asked.
            self.abort()
            return
        answer.feed(data)
        if answer.over:
            self._leave(answer)

    def _leave(self, answer: Answer) -> None:
        self._answer = None
        self.resume()
        # A server may answer before it has read the whole request.
        if answer.reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self._pool.give(self)
        else:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        self._pool.forget(self)
        self.closed.set_result(None)
        if self._answer is not None:
            self._answer.lost(error)
            self._answer = None

    def pause(self) -> None:
        """Read no more of the answer for now."""
        if self._answer is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; the server stops its work on the request."""
        self._transport.abort()
