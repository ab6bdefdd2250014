"""Accepts clients' connections, and closes them when the proxy stops."""

import asyncio

from harness.proxy.client import ClientConnection, Handler

# A thousand clients may connect at the same instant; the kernel caps this at net.core.somaxconn.
_BACKLOG = 4096
_SWEEP_S = 15.0
"""How often idle connections are looked for."""


class Listener:
    """Serves ``handle`` to every connection."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address and port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, host, port, backlog=_BACKLOG)
        self._sweep = loop.call_later(_SWEEP_S, self._close_idle)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    def _connected(self) -> ClientConnection:
        connection = ClientConnection(self._handle, self._connections.discard)
        self._connections.add(connection)
        return connection

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            connection.close_if_idle(loop.time())
        self._sweep = loop.call_later(_SWEEP_S, self._close_idle)

    async def stop(self, grace_s: float) -> None:
        """Accept no new connection, let requests in progress end for some seconds, then cancel them."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        await self._end_tasks(grace_s)
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in connections))
        if self._server is not None:
            await self._server.wait_closed()

    async def _end_tasks(self, grace_s: float) -> None:
        tasks = {connection.task for connection in self._connections} - {None}
        if not tasks:
            return
        _, late = await asyncio.wait([task for task in tasks if task], timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
