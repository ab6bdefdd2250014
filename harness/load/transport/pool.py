"""Keeps connections to servers open between requests, and opens new ones."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohappyeyeballs

from harness.load.transport.connection import Connection, Receiver
from harness.load.transport.gathering import Gathering
from harness.load.transport.limits import Waits, time_limit

_Addresses = list[tuple[Any, Any, int, str, tuple[Any, ...]]]

KEEPALIVE_S = 3.0
"""Seconds. vLLM's HTTP server (uvicorn) closes an idle connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). A request
sent on a connection at that moment would be cut, and its operation INFO without any fault of the deployment."""
_ADDRESSES_KEPT_S = 10.0
"""Seconds, as in aiohttp: hundreds of connections at once ask the name server once."""
_NEXT_ADDRESS_S = 0.25
"""Seconds after which the next address of a name is tried as well (RFC 8305), as in aiohttp."""


class NotConnected(Exception):  # noqa: N818 - reads as what happened
    """No connection could be made; nothing was sent."""


@dataclass(slots=True, eq=False)
class Server:
    """A server's address, its idle connections (the one used last comes last), and what the name server said."""

    host: str
    port: int
    idle: list[tuple[Connection, float]] = field(default_factory=list)
    addresses: "asyncio.Future[_Addresses] | None" = None
    looked_up: float = 0.0


class Pool:
    """The connections to all servers.

    ``now``: the run's clock, for the times of arrivals. ``timeout``: seconds that an exchange may take.
    """

    def __init__(self, now: Callable[[], float], timeout: float) -> None:
        self._now = now
        self._timeout = timeout
        self._waits = Waits(timeout)
        self._servers: dict[tuple[str, int], Server] = {}
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering(self._loop)
        self._sweep: asyncio.TimerHandle | None = None
        self._used: set[Connection] = set()

    def server(self, host: str, port: int) -> Server:
        """The server at this address."""
        return self._servers.setdefault((host, port), Server(host, port))

    async def exchange(self, server: Server, request: bytes, receiver: Receiver) -> None:
        """Send a request and wait for the whole answer. Cancellation closes the connection.

        Raises NotConnected, TimedOut, OSError if the connection breaks, and what the receiver raises.
        """
        if (connection := self._idle(server)) is not None:
            await self._over(connection, server, request, receiver)
            return
        # Connecting takes a part of the time, too.
        async with time_limit(self._timeout):
            await self._over(await self._connect(server), server, request, receiver)

    async def _over(self, connection: Connection, server: Server, request: bytes, receiver: Receiver) -> None:
        self._used.add(connection)
        reusable = False
        try:
            ended = connection.exchange(request, receiver)
            self._waits.begin(ended)
            try:
                reusable = await ended
            finally:
                self._waits.end(ended)
        finally:
            self._used.discard(connection)
            if reusable:
                server.idle.append((connection, self._loop.time()))
                self._sweep = self._sweep or self._loop.call_later(KEEPALIVE_S, self._close_idle)
            else:
                connection.close()

    async def close(self) -> None:
        """Close all connections."""
        self._waits.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._used, *(one for server in self._servers.values() for one, _ in server.idle)]:
            connection.close()
        # A transport closes its socket in the loop's next turn.
        await asyncio.sleep(0)

    def _idle(self, server: Server) -> Connection | None:
        """A connection that is open and was used a short time ago; those that were not are closed."""
        while server.idle:
            connection, since = server.idle.pop()
            if connection.is_open and self._loop.time() - since <= KEEPALIVE_S:
                return connection
            connection.close()
        return None

    def _close_idle(self) -> None:
        """Close connections that were idle for too long; called as long as there are idle ones."""
        oldest = self._loop.time() - KEEPALIVE_S
        for server in self._servers.values():
            for connection, since in server.idle:
                if since <= oldest:
                    connection.close()
            server.idle = [(one, since) for one, since in server.idle if since > oldest]
        waiting = any(server.idle for server in self._servers.values())
        self._sweep = self._loop.call_later(KEEPALIVE_S, self._close_idle) if waiting else None

    async def _connect(self, server: Server) -> Connection:
        try:
            opened = await aiohappyeyeballs.start_connection(
                await self._addresses(server), happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=self._loop
            )
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._now, self._gathering), sock=opened
            )
        except OSError as error:
            raise NotConnected(f"cannot connect to {server.host}:{server.port}: {error}") from error
        return connection

    async def _addresses(self, server: Server) -> _Addresses:
        """The server's addresses; one look-up serves all who wait for it."""
        kept = server.addresses
        if kept is None or self._loop.time() - server.looked_up > _ADDRESSES_KEPT_S or (kept.done() and _failed(kept)):
            look_up = self._loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            kept = server.addresses = asyncio.ensure_future(look_up)
            server.looked_up = self._loop.time()
        # A request that is cancelled does not cancel the look-up of the others.
        return await asyncio.shield(kept)


def _failed(look_up: "asyncio.Future[_Addresses]") -> bool:
    return look_up.cancelled() or look_up.exception() is not None
