"""Clients that disconnect: nothing is logged, each is counted once, and no server goes on working for them."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from aiohttp import web
from polling import until
from proxy_fakes import DEADLINE_S, Pair, Script, answering, closed_port, decoded, pair, prefilled, proxying

from harness.proxy import start_proxy
from harness.proxy.client import ClientConnection
from harness.proxy.status import Stage

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % 2 + b"{}"


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No logger logs a warning, asyncio's and aiohttp's included."""
    caplog.set_level(logging.WARNING)
    yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


@dataclass
class Client:
    """A socket to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    opened: ClassVar[list["Client"]] = []

    @classmethod
    async def connect(cls, url: str) -> "Client":
        host, port = url.removeprefix("http://").split(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        cls.opened.append(client)
        return client

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(end)

    async def read(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()

    def leave(self, how: str) -> None:
        """``closes``: both directions; ``resets``: with a TCP reset; ``half-closes``: only the sending direction."""
        if how == "half-closes":
            self.writer.write_eof()
            return
        if how == "resets":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Close every connection that a test left open or half open."""
    yield
    while Client.opened:
        writer = Client.opened.pop().writer
        writer.close()
        # A connection that was reset is closed as well.
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


HOW = ("closes", "resets", "half-closes")


async def until_gone(servers: Pair, stage: Stage) -> None:
    """Wait until the client is counted and nothing is in flight; assert one count, at this stage."""
    status = servers.proxy.status
    await until(lambda: sum(status()["client_gone"].values()) and not status()["in_flight"])
    assert status()["client_gone"] == dict.fromkeys(Stage, 0) | {stage: 1}
    await until(lambda: not running_handlers())
    assert status()["client_gone"][stage] == 1


def running_handlers() -> set[Any]:
    return {task for task in asyncio.all_tasks() if "_handle_request" in repr(task.get_coro())}


@dataclass
class Gate:
    """A server's script that pauses until the test sets ``go_on``, and sets ``left`` when its client disconnects."""

    first: bytes | None = None
    """Sent before the pause."""
    last: bytes | None = None
    """Sent after the pause."""
    length: int | None = None
    """Content-Length; None: chunked."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={} if self.length is None else {"Content-Length": str(self.length)})
        if self.first is not None:
            await response.prepare(request)
            await response.write(self.first)
        self.reached.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        if self.last:
            await response.prepare(request)
            await response.write(self.last)
        return response


async def asked(servers: Pair, gate: Gate) -> Client:
    client = await Client.connect(servers.proxy.url)
    client.writer.write(REQUEST)
    async with asyncio.timeout(DEADLINE_S):
        await gate.reached.wait()
    return client


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("sent", [b"POST /v1/comp", HEAD % 100, HEAD % 100 + b"{", HEAD % (1 << 22) + b"x" * 300_000])
async def test_a_client_that_leaves_while_its_request_arrives(how: str, sent: bytes) -> None:
    async with pair() as servers:
        client = await Client.connect(servers.proxy.url)
        client.writer.write(sent)
        # Not a whole request line: there is no request to count.
        if sent.endswith(b"comp"):
            client.leave(how)
            assert servers.proxy.status()["requests"] == 0
            return
        await until(lambda: servers.proxy.status()["in_flight"])
        client.leave(how)
        await until_gone(servers, Stage.REQUEST)
        assert servers.p.seen == servers.d.seen == []


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_while_p_computes(how: str) -> None:
    gate = Gate()
    async with pair(p_script=gate) as servers:
        (await asked(servers, gate)).leave(how)
        await until_gone(servers, Stage.PREFILL)
        await until(gate.left.is_set)
        assert servers.d.seen == []


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_before_the_first_byte(how: str) -> None:
    gate = Gate()
    async with pair(d_script=gate) as servers:
        (await asked(servers, gate)).leave(how)
        await until_gone(servers, Stage.HANDOVER)
        await until(gate.left.is_set)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("length", [None, 100])
async def test_a_client_that_leaves_in_the_middle(how: str, length: int | None) -> None:
    gate = Gate(first=b"data: {}\n\n", length=length)
    async with pair(d_script=gate) as servers:
        client = await asked(servers, gate)
        await client.read_until(b"data: {}\n\n")
        client.leave(how)
        await until_gone(servers, Stage.DECODE)
        await until(gate.left.is_set)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b"x" * 3_000_000, b""])
@pytest.mark.parametrize("first", [b"data: {}\n\n", None])
async def test_a_client_that_leaves_as_the_end_arrives(how: str, last: bytes, first: bytes | None) -> None:
    """Both happen in one turn of the event loop: the proxy may see either first."""
    gate = Gate(first=first, last=last)
    async with pair(d_script=gate) as servers:
        client = await asked(servers, gate)
        if first:
            await client.read_until(first)
        gate.go_on.set()
        client.leave(how)
        await until(lambda: not servers.proxy.status()["in_flight"])
        status = servers.proxy.status()
        whole = status["decode"][0]["completed"]
        assert sum(status["client_gone"].values()) + whole == 1
        assert status["decode"][0]["broken"] == 0


def close_before(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Let the proxy's connection to a client close just before this step, so that only the step can notice it."""
    real = getattr(ClientConnection, step)

    def closing(connection: ClientConnection, *args: Any, **kwargs: Any) -> Any:
        connection._transport.close()
        return real(connection, *args, **kwargs)

    monkeypatch.setattr(ClientConnection, step, closing)


@pytest.mark.parametrize("step", ["begin", "send", "drained"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_write_that_finds_the_connection_closed(
    monkeypatch: pytest.MonkeyPatch, step: str, stream: bool
) -> None:
    gate = Gate(first=b"data: {}\n\n" if stream else b"{}", length=None if stream else 2, last=b"")
    gate.go_on.set()
    async with pair(d_script=gate) as servers:
        close_before(monkeypatch, step)
        client = await Client.connect(servers.proxy.url)
        client.writer.write(REQUEST)
        await client.read()
        await until(lambda: servers.proxy.status()["requests"] and not servers.proxy.status()["in_flight"])
        gone = servers.proxy.status()["client_gone"]
        whole = servers.proxy.status()["decode"][0]["completed"]
        assert gone[Stage.DECODE] + whole == 1
        assert whole == 0 or step == "drained", "all is sent before drained"


@pytest.mark.parametrize(
    ("p_script", "sent", "stage"),
    [(None, HEAD % 1 + b"x", Stage.REQUEST), (answering(500, {"error": "no"}), REQUEST, Stage.PREFILL)],
    ids=["rejected", "p-s-error"],
)
async def test_a_client_that_left_before_its_error_answer(
    monkeypatch: pytest.MonkeyPatch, p_script: Script | None, sent: bytes, stage: Stage
) -> None:
    async with pair(p_script=p_script) as servers:
        client = await Client.connect(servers.proxy.url)
        close_before(monkeypatch, "send")
        client.writer.write(sent)
        assert await client.read() == b""
        await until_gone(servers, stage)


@pytest.mark.parametrize("path", [b"/health", b"/proxy/status", b"/metrics", b"/v1/models", b"/nowhere"])
@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_another_page(path: bytes, how: str) -> None:
    async with pair() as servers:
        # The proxy may notice each client in another turn of the event loop.
        for _ in range(3):
            client = await Client.connect(servers.proxy.url)
            client.writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            client.leave(how)
        async with servers.client.get(servers.proxy.url + "/proxy/status") as answer:
            assert answer.status == 200
        await until(lambda: not running_handlers())
        assert sum(servers.proxy.status()["client_gone"].values()) == 0, "only requests that generate are counted"


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_before_100_continue(how: str) -> None:
    async with pair() as servers:
        client = await Client.connect(servers.proxy.url)
        client.writer.write((HEAD % 100).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        client.leave(how)
        async with servers.client.get(servers.proxy.url + "/proxy/status") as answer:
            assert answer.status == 200
        await until(lambda: not running_handlers())


async def test_a_stopping_proxy_counts_no_client_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.proxy.server.GRACE_S", 0.01)
    gate = Gate(first=b"data: {}\n\n")
    async with pair(d_script=gate) as servers:
        proxy = await start_proxy([servers.p.url], [servers.d.url])
        client = await Client.connect(proxy.url)
        client.writer.write(REQUEST)
        await client.read_until(b"data: {}\n\n")
        await proxy.stop()
        assert sum(proxy.status()["client_gone"].values()) == 0
        assert proxy.status()["in_flight"] == 0
        await until(gate.left.is_set)


async def test_a_refused_connection_to_a_server_is_not_counted_as_a_lost_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = await closed_port()
    async with proxying([nowhere], [nowhere]) as proxy:
        client = await Client.connect(proxy.url)
        client.writer.write(REQUEST)
        assert (await client.read_until(b"\r\n")).startswith(b"HTTP/1.1 502")
        client.leave("closes")
    assert sum(proxy.status()["client_gone"].values()) == 0
    (record,) = caplog.records
    assert "cannot be reached" in record.getMessage()
    caplog.clear()


async def test_a_storm_of_clients_that_leave_at_every_stage_leaves_nothing_behind() -> None:
    """Each third leaves at another stage; the servers are let go at once, and other clients are served."""
    stages = (Stage.PREFILL, Stage.HANDOVER, Stage.DECODE)
    gates = {b"%d" % number: Gate(first=b"data: {}\n\n" if number % 3 == 2 else None) for number in range(30)}

    def gated(role_stages: tuple[Stage, ...], otherwise: Script) -> Script:
        async def script(request: web.Request) -> web.StreamResponse:
            number = request.headers["X-Number"].encode()
            gate = gates.get(number)
            wanted = gate is not None and stages[int(number) % 3] in role_stages
            return await gate(request) if gate is not None and wanted else await otherwise(request)

        return script

    p_script, d_script = gated((Stage.PREFILL,), prefilled), gated((Stage.HANDOVER, Stage.DECODE), decoded)
    async with pair(p_script=p_script, d_script=d_script) as servers:
        clients = []
        for number, gate in gates.items():
            client = await Client.connect(servers.proxy.url)
            client.writer.write(REQUEST.replace(b"Host: x", b"Host: x\r\nX-Number: " + number))
            clients.append(client)
            async with asyncio.timeout(DEADLINE_S):
                await gate.reached.wait()
        for number, client in enumerate(clients):
            if number % 3 == 2:
                await client.read_until(b"data: {}\n\n")
            client.leave(HOW[number // 3 % 3])
        status = servers.proxy.status
        await until(lambda: sum(status()["client_gone"].values()) == 30 and not status()["in_flight"])
        assert {stage: status()["client_gone"][stage] for stage in stages} == dict.fromkeys(stages, 10)
        await until(lambda: all(gate.left.is_set() for gate in gates.values()))
        await until(lambda: not running_handlers())
        async with servers.post({}, headers={"X-Number": "none"}) as answer:
            assert answer.status == 200
