"""A server is killed and started again: each client gets an answer that names it, and no connection is left open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from polling import until
from raw_http import HANDOVER, Script, Wire, answer, answers, post, raw_client

from harness.proxy import ProxyHandle, start_proxy
from harness.proxy.pool import Pool

CLIENTS = 8


async def _hangs(wire: Wire) -> None:
    """Takes a request, and never answers."""
    await wire.request()
    await asyncio.Event().wait()


@dataclass
class Killable:
    """A server that can be killed, and started again on the same port."""

    script: Script
    url: str = ""
    _port: int = 0
    _listening: asyncio.Server | None = None
    _open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)

    async def start(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        host, self._port = self._listening.sockets[0].getsockname()
        self.url = f"http://{host}:{self._port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self.script(Wire(reader, writer, 0, self.seen))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self._open[task]

    async def kill(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for task in [*self._open]:
            task.cancel()
        await until(lambda: not self._open)


@dataclass
class Rig:
    """P and D, one of which can be killed."""

    killed: Killable
    proxy: ProxyHandle

    async def ask(self) -> tuple[int, str]:
        async with raw_client(self.proxy.url) as client:
            client.send(post())
            status, body = await client.counted()
            return status, body.decode()

    def in_use(self) -> int:
        """Connections of the proxy to both servers that carry a request."""
        return sum(len(pool._in_use) for pool in self._pools())

    def idle(self) -> int:
        """Connections of the proxy to both servers that wait for a request."""
        return sum(len(pool._idle) for pool in self._pools())

    def _pools(self) -> list[Pool]:
        inside = self.proxy._proxy
        return [one.pool for one in (*inside._prefill, *inside._decode)]


@asynccontextmanager
async def rig(role: str) -> AsyncIterator[Rig]:
    good = {"prefill": answers(answer(HANDOVER)), "decode": answers(answer(b"{}"))}
    killed, other = Killable(_hangs), Killable(good["decode" if role == "prefill" else "prefill"])
    await killed.start()
    await other.start()
    servers = [killed.url, other.url] if role == "prefill" else [other.url, killed.url]
    proxy = await start_proxy(servers[:1], servers[1:])
    try:
        yield Rig(killed, proxy)
    finally:
        await proxy.stop()
        await killed.kill()
        await other.kill()


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_killed_server_is_named_to_every_client_and_nothing_is_left_open(role: str) -> None:
    async with rig(role) as running:
        asked = [asyncio.create_task(running.ask()) for _ in range(CLIENTS)]
        await until(lambda: len(running.killed.seen) == CLIENTS)
        await running.killed.kill()
        for status, body in await asyncio.gather(*asked):
            assert status == 502
            assert f"The {role} server {running.killed.url} closed the connection" in body
        status, body = await running.ask()
        assert status == 502
        assert f"The {role} server {running.killed.url} cannot be reached" in body
        assert running.in_use() == 0
        assert running.proxy.status()["in_flight"] == 0


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_server_that_was_started_again_is_asked_again(role: str) -> None:
    async with rig(role) as running:
        await running.killed.kill()
        assert (await running.ask())[0] == 502
        running.killed.script = answers(answer(HANDOVER if role == "prefill" else b"{}"))
        await running.killed.start()
        assert (await running.ask())[0] == 200
        await until(lambda: running.in_use() == 0)


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_connection_that_was_idle_when_the_server_was_killed_is_not_used(role: str) -> None:
    async with rig(role) as running:
        running.killed.script = answers(answer(HANDOVER if role == "prefill" else b"{}"))
        assert (await running.ask())[0] == 200
        assert running.idle() == 2
        await running.killed.kill()
        await until(lambda: running.idle() == 1)
        await running.killed.start()
        assert [(await running.ask())[0] for _ in range(CLIENTS)] == [200] * CLIENTS
