"""The fabric of a server that has a process of its own: it reaches the side channels of others over TCP.

Rule 1. One connection to each engine, made by a handshake, is kept until it breaks. So a server that was restarted,
which has a new engine id, refuses parameters of its former life: the handshake fails.

Rule 2. Nothing here blocks the engine. A pull ends when P has answered, when the connection breaks, or at its time
limit; the last two are failed transfers.

Rule 3. A connection on which a read was not answered in time is closed, because the other side may have forgotten it;
the next pull shakes hands again (vLLM 0.32.0 forgets an engine after a failed transfer, ``_failed_remote_engines``).
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from harness.sim.connection import Connection, HandshakeFailed, Lost, RemoteMemory
from harness.sim.fabric import Address, Member, Reached


class Sockets:
    """One server's way to others."""

    def __init__(self, host: str, port: int, version: str, pull_seconds: float) -> None:
        self._host, self._port = host, port
        self._version = version
        self._pull_seconds = pull_seconds
        self._connections: dict[Address, asyncio.Task[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, engine_id: str, member: Member) -> Address:  # noqa: ARG002 - side_channel.py serves the member
        """Where this server's side channel is."""
        return Address(engine_id, self._host, self._port)

    def reach(self, address: Address, request_id: str, blocks: list[int], done: Callable[[Reached], None]) -> None:
        """Read blocks from P's process, and call ``done`` later in the event loop."""
        self._begin(self._reach(address, request_id, blocks, done))

    def release(self, address: Address, request_id: str) -> None:
        """Notify P that its blocks are not needed."""
        self._begin(self._release(address, request_id))

    def renew(self, address: Address, request_id: str) -> None:
        """Renew a lease over a connection that stands; else shake hands for the next time, as vLLM does."""
        task = self._connecting(address)
        if task.done() and not task.exception():
            task.result().tell("renew", request_id)

    async def close(self) -> None:
        """End every connection, and everything under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connecting in self._connections.values():
            connecting.cancel()
            with suppress(asyncio.CancelledError, HandshakeFailed):
                await (await connecting).close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(
        self, address: Address, request_id: str, blocks: list[int], done: Callable[[Reached], None]
    ) -> None:
        try:
            connection = await asyncio.shield(self._connecting(address))
        except HandshakeFailed:
            done(Reached(None))
            return
        try:
            async with asyncio.timeout(self._pull_seconds):
                memory = await connection.read(request_id, blocks)
        except (TimeoutError, Lost):
            await connection.close()
            done(Reached(RemoteMemory(connection), lost=True))
        else:
            done(Reached(memory))

    async def _release(self, address: Address, request_id: str) -> None:
        with suppress(HandshakeFailed):
            (await asyncio.shield(self._connecting(address))).tell("notify", request_id)

    def _connecting(self, address: Address) -> asyncio.Task[Connection]:
        task = self._connections.get(address)
        if task is None or _ended(task):
            task = self._connections[address] = asyncio.create_task(Connection.open(address, self._version))
            # So that a handshake that only a renewal wanted fails without a message.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task


def _ended(task: "asyncio.Task[Connection]") -> bool:
    return task.done() and (task.exception() is not None or task.result().closed)
