"""Clients that leave the proxy: nothing of it in the log, counted once, and no server goes on working for them."""

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
from proxy_fakes import DEADLINE_S, Pair, Script, answering, closed_port, pair

from harness.proxy import start_proxy
from harness.proxy.status import Phase

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % 2 + b"{}"


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Of any logger, asyncio's and aiohttp's included."""
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
        """As clients do: an orderly end, a reset, or the end of sending alone."""
        if how == "half-closes":
            self.writer.write_eof()
            return
        if how == "resets":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Whatever a test left open, also half."""
    yield
    while Client.opened:
        writer = Client.opened.pop().writer
        writer.close()
        with contextlib.suppress(ConnectionError):  # it was reset: closed all the same
            await writer.wait_closed()


HOW = ("closes", "resets", "half-closes")


async def until_gone(servers: Pair, phase: Phase) -> None:
    """Until the client was counted and nothing is in flight; and that it was counted once, in this phase."""
    status = servers.proxy.status
    await until(lambda: sum(status()["client_gone"].values()) and not status()["in_flight"])
    assert status()["client_gone"] == dict.fromkeys(Phase, 0) | {phase: 1}
    await until(lambda: not others())
    assert status()["client_gone"][phase] == 1


def others() -> set[Any]:
    """Handlers that still run."""
    return {task for task in asyncio.all_tasks() if "_handle_request" in repr(task.get_coro())}


@dataclass
class Gate:
    """A server's script that stops where the test wants it, and says when its client has left."""

    first: bytes | None = None
    """Sent before it stops."""
    last: bytes | None = None
    """Sent once it goes on; None: it never does."""
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
        if sent.endswith(b"comp"):  # no request yet, and so nobody's
            client.leave(how)
            assert servers.proxy.status()["requests"] == 0
            return
        await until(lambda: servers.proxy.status()["in_flight"])
        client.leave(how)
        await until_gone(servers, Phase.REQUEST)
        assert servers.p.seen == servers.d.seen == []


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_while_p_computes(how: str) -> None:
    gate = Gate()
    async with pair(p_script=gate) as servers:
        (await asked(servers, gate)).leave(how)
        await until_gone(servers, Phase.PREFILL)
        await until(gate.left.is_set)
        assert servers.d.seen == []


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_before_the_first_byte(how: str) -> None:
    gate = Gate()
    async with pair(d_script=gate) as servers:
        (await asked(servers, gate)).leave(how)
        await until_gone(servers, Phase.HANDOVER)
        await until(gate.left.is_set)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("length", [None, 100])
async def test_a_client_that_leaves_in_the_middle(how: str, length: int | None) -> None:
    gate = Gate(first=b"data: {}\n\n", length=length)
    async with pair(d_script=gate) as servers:
        client = await asked(servers, gate)
        await client.read_until(b"data: {}\n\n")
        client.leave(how)
        await until_gone(servers, Phase.DECODE)
        await until(gate.left.is_set)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b"x" * 3_000_000, b""])
@pytest.mark.parametrize("first", [b"data: {}\n\n", None])
async def test_a_client_that_leaves_as_the_end_arrives(how: str, last: bytes, first: bytes | None) -> None:
    """In one turn of the loop: the proxy may see the end first, or that the client is gone."""
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


@pytest.mark.parametrize("step", ["prepare", "write", "write_eof"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_write_that_finds_the_connection_closed(
    monkeypatch: pytest.MonkeyPatch, step: str, stream: bool
) -> None:
    """The transport closes just before this step of the relay: no read has told the proxy so far."""
    real = getattr(web.StreamResponse, step)

    async def closing(response: web.StreamResponse, *args: Any) -> Any:
        request = args[0] if step == "prepare" else response._req
        if type(response) is web.StreamResponse and request is not None and not request.headers.get("X-Request-Id"):
            assert request.transport is not None
            request.transport.close()
        return await real(response, *args)

    gate = Gate(first=b"data: {}\n\n" if stream else b"{}", length=None if stream else 2, last=b"")
    gate.go_on.set()
    async with pair(d_script=gate) as servers:
        monkeypatch.setattr(web.StreamResponse, step, closing)
        client = await Client.connect(servers.proxy.url)
        client.writer.write(REQUEST)
        await client.read()
        await until(lambda: servers.proxy.status()["requests"] and not servers.proxy.status()["in_flight"])
        gone = servers.proxy.status()["client_gone"]
        whole = servers.proxy.status()["decode"][0]["completed"]
        assert gone[Phase.DECODE] + whole == 1
        assert whole == 0 or (step == "write_eof" and not stream), "a counted body was whole before its end was said"
        monkeypatch.undo()


BROKEN_HANDOVER = answering(200, {"choices": []})


@pytest.mark.parametrize(
    ("p_script", "sent", "phase"),
    [
        (None, HEAD % 1 + b"x", Phase.REQUEST),
        (answering(500, {"error": "no"}), REQUEST, Phase.PREFILL),
    ],
    ids=["rejected", "p-s-error"],
)
async def test_a_client_that_left_before_its_error_answer(
    monkeypatch: pytest.MonkeyPatch, p_script: Script | None, sent: bytes, phase: Phase
) -> None:
    real = web.StreamResponse.prepare

    async def closing(response: web.StreamResponse, request: Any) -> Any:
        if not request.headers.get("X-Request-Id"):  # the client's request, not the proxy's to P
            request.transport.close()
        return await real(response, request)

    async with pair(p_script=p_script) as servers:
        client = await Client.connect(servers.proxy.url)
        monkeypatch.setattr(web.StreamResponse, "prepare", closing)
        client.writer.write(sent)
        assert await client.read() == b""
        monkeypatch.undo()
        await until_gone(servers, phase)


@pytest.mark.parametrize("path", [b"/health", b"/proxy/status", b"/metrics", b"/v1/models", b"/nowhere"])
@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_another_page(path: bytes, how: str) -> None:
    async with pair() as servers:
        for _ in range(3):  # at whatever turn of the loop it is seen
            client = await Client.connect(servers.proxy.url)
            client.writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            client.leave(how)
        async with servers.client.get(servers.proxy.url + "/proxy/status") as answer:
            assert answer.status == 200
        await until(lambda: not others())
        assert sum(servers.proxy.status()["client_gone"].values()) == 0, "of requests that generate alone"


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_leaves_when_it_is_told_to_continue(how: str) -> None:
    async with pair() as servers:
        client = await Client.connect(servers.proxy.url)
        client.writer.write((HEAD % 100).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        client.leave(how)
        async with servers.client.get(servers.proxy.url + "/proxy/status") as answer:
            assert answer.status == 200
        await until(lambda: not others())


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


async def test_a_refused_connection_is_no_client_s_leaving(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = await closed_port()
    proxy = await start_proxy([nowhere], [nowhere])
    client = await Client.connect(proxy.url)
    client.writer.write(REQUEST)
    assert (await client.read_until(b"\r\n")).startswith(b"HTTP/1.1 502")
    client.leave("closes")
    await proxy.stop()
    assert sum(proxy.status()["client_gone"].values()) == 0
    (record,) = caplog.records
    assert "cannot be reached" in record.getMessage()
    caplog.clear()
