"""A TCP server that answers HTTP requests with exactly the bytes that a test gives it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from turns import turn

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    """The pieces in HTTP's chunked coding, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def sized(body: bytes, status: bytes = b"200 OK", kind: bytes = b"text/event-stream") -> bytes:
    """A whole answer with its length."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


@dataclass(slots=True)
class Asked:
    """One request, and the ways to answer it."""

    head: bytes
    body: bytes
    connection: int
    """Counted from 0."""
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def send(self, *pieces: bytes) -> None:
        """Write each piece by itself, and give the client turns to read it."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(2):
                await turn()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        """Close as a server does that ends."""
        self.writer.close()

    def reset(self) -> None:
        """Close with a reset."""
        opened = self.writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answering = Callable[[Asked], Awaitable[None]]


@dataclass(slots=True)
class Served:
    """A running server, and what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def answering(script: Answering, *, reads_body: bool = True) -> AsyncIterator[Served]:
    """A server that runs the script for every request, as long as the connection is open."""
    served, tasks, writers = Served(), set[asyncio.Task[None]](), list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = served.connections
        served.connections += 1
        while not writer.is_closing() and (head := await _head(reader)):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length) if reads_body else b""
            served.asked.append(Asked(head, body, number, writer, reader))
            await script(served.asked[-1])

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 22)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        # A connection that the client broke off raises its error here too.
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await server.wait_closed()
        for end in ends:
            if isinstance(end, Exception):
                raise end


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The next request's head; empty if the client has closed the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
