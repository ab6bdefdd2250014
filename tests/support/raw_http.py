"""Clients and servers that send any bytes: one side of a connection, without an HTTP library."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from proxy_fakes import DEADLINE_S, PARAMS

from harness.proxy import ProxyHandle, start_proxy

HANDOVER = json.dumps({"kv_transfer_params": PARAMS}).encode()


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer of counted length."""
    lines = b"".join(header + b"\r\n" for header in (*headers, b"Content-Length: %d" % len(body)))
    return b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n" + body


def post(body: bytes = b"{}", *headers: bytes, path: bytes = b"/v1/completions", version: bytes = b"1.1") -> bytes:
    """A request of counted length."""
    lines = b"".join(header + b"\r\n" for header in (b"Host: x", *headers, b"Content-Length: %d" % len(body)))
    return b"POST " + path + b" HTTP/" + version + b"\r\n" + lines + b"\r\n" + body


@dataclass
class Wire:
    """One connection to a raw server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """How many connections the server had before."""
    seen: list[bytes]
    """The server's requests."""

    async def request(self) -> bytes:
        """The next request, head and body; raises IncompleteReadError if the proxy closes the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        self.seen.append(head + await self.reader.readexactly(length))
        return self.seen[-1]


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class RawServer:
    """Runs its script for each connection, and closes the connection when the script returns."""

    script: Script
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, self.connections, self.requests)
        self.connections += 1
        try:
            await self.script(wire)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The proxy closed the connection.
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[RawServer]:
    server = RawServer(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = "http://{}:{}".format(*listening.sockets[0].getsockname())
    try:
        yield server
    finally:
        listening.close()


def answers(*each: bytes) -> Script:
    """Answers every request of a connection with the same parts, each in a write of its own."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            for part in each:
                wire.writer.write(part)
                await wire.writer.drain()

    return script


@dataclass
class RawClient:
    """A connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """The next answer's head."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def counted(self) -> tuple[int, bytes]:
        """The next answer, which has a counted length: status and body."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        async with asyncio.timeout(DEADLINE_S):
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """All bytes until the proxy closes the connection."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


@dataclass
class Rig:
    """P, D and the proxy."""

    p: RawServer
    d: RawServer
    proxy: ProxyHandle


@asynccontextmanager
async def rig(d_script: Script, p_script: Script | None = None) -> AsyncIterator[Rig]:
    async with raw_server(p_script or answers(answer(HANDOVER))) as p, raw_server(d_script) as d:
        proxy = await start_proxy([p.url], [d.url])
        try:
            yield Rig(p, d, proxy)
        finally:
            await proxy.stop()
