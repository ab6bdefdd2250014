"""A prefill and a decode server that answer at once with fixed bytes, and a client that reads as cheaply."""

import asyncio
import json
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import cast
from urllib.parse import urlsplit

import uvloop

_PARAMS = {
    "do_remote_prefill": True,
    "remote_block_ids": [list(range(32))],
    "remote_engine_id": "e",
    "remote_request_id": "r",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
}
_EVENT = b'data: {"choices": [{"text": "x", "token_ids": [1]}]}\n\n'
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


class _FixedAnswer(asyncio.Protocol):
    """The same answer for every request on the connection; each of its pieces in a turn of the event loop."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            match = _LENGTH.search(self._buffer, 0, end)
            whole = end + 4 + (int(match[1]) if match else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._write(iter(self._pieces))

    def _write(self, pieces: Iterator[bytes]) -> None:
        if (piece := next(pieces, None)) is not None:
            self._transport.write(piece)
            self._loop.call_soon(self._write, pieces)


def _prefilled() -> bytes:
    raw = json.dumps({"choices": [{"finish_reason": "length"}], "kv_transfer_params": _PARAMS}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


def _stream(events: int, pieces: int) -> list[bytes]:
    chunk = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
    shares = [events * (n + 1) // pieces - events * n // pieces for n in range(pieces)]
    first, *middle = [chunk * share for share in shares]
    return [_STREAM + first, *middle[:-1], middle[-1] + _END] if middle else [_STREAM + first + _END]


def _serve(pipe: Connection, core: int, events: int, pieces: int) -> None:
    async def serve() -> None:
        os.sched_setaffinity(0, {core})
        loop = asyncio.get_running_loop()
        answers = [_prefilled()], _stream(events, pieces)
        servers = [await loop.create_server(partial(_FixedAnswer, answer), "127.0.0.1", 0) for answer in answers]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(serve())


@contextmanager
def serving(core: int, events: int, pieces: int) -> Iterator[tuple[int, int]]:
    """The ports of a prefill and a decode server in a process of their own, which runs on this core."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(there, core, events, pieces), daemon=True)
    process.start()
    try:
        prefill, decode = here.recv()
        yield prefill, decode
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True, slots=True)
class Timed:
    """The result of one load."""

    seconds: float
    first_bytes: list[float]
    """Seconds from each request to the first byte of its answer's body."""

    @property
    def rate(self) -> float:
        """Streams per second."""
        return len(self.first_bytes) / self.seconds

    @property
    def ttft(self) -> float:
        """The median time to the first byte, in seconds."""
        return statistics.median(self.first_bytes)


class _Client(asyncio.Protocol):
    """Sends one request after another on one connection, as long as ``turns`` lasts."""

    def __init__(self, request: bytes, turns: Iterator[int], first_bytes: list[float]) -> None:
        self._request, self._turns, self._first_bytes = request, turns, first_bytes
        self._head = b""
        self._begun = False
        self._tail = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        if next(self._turns, None) is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._head, self._begun, self._tail = b"", False, b""
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._head += data
            head, _, body = self._head.partition(b"\r\n\r\n")
            if not body:
                return
            self._begun = True
            self._first_bytes.append(time.perf_counter() - self._sent)
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"The answer is not a stream: {head.decode(errors='replace')}")
            data = body
        self._tail = (self._tail + data)[-len(_END) :]
        if self._tail == _END:
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the connection ended within an answer"))


def load(url: str, body: bytes, requests: int, concurrency: int) -> Timed:
    """Ask for completions, as many at a time as ``concurrency``."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    async def clients() -> Timed:
        turns, first_bytes = iter(range(requests)), list[float]()
        make: Callable[[], _Client] = partial(_Client, request, turns, first_bytes)
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        pairs = [await loop.create_connection(make, host, port) for _ in range(concurrency)]
        await asyncio.gather(*(client.done for _, client in pairs))
        return Timed(time.perf_counter() - start, first_bytes)

    return uvloop.run(clients())
