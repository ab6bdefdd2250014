"""Measures the cost of the proxy itself, with servers that answer immediately.

Servers, proxy and client are three processes. On fewer than three free cores they slow each other down: then only
``cpu``, the proxy's own CPU time per request (from /proc), is reliable. Linux only.

    python bench/proxy_overhead.py --requests 5000 --concurrency 32 --events 64
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import aiohttp
import uvloop

_PARAMS = {
    "do_remote_prefill": True,
    "remote_block_ids": [list(range(32))],
    "remote_engine_id": "e",
    "remote_request_id": "r",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
}
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class _FixedAnswer(asyncio.Protocol):
    """A minimal server: the same fixed answer for every request on the connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            match = _LENGTH.search(self._buffer, 0, end)
            whole = end + 4 + (int(match[1]) if match else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._transport.write(self._answer)


def _json_answer(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)


def _stream_answer(events: int) -> bytes:
    """A streamed answer that is sent in one write, so that the number of reads does not matter."""
    event = b'data: {"choices": [{"text": "x", "token_ids": [1]}]}\n\n'
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for _ in range(events))
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % chunks
    )


def _serve(pipe: Connection, events: int) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        answers = (_json_answer({"kv_transfer_params": _PARAMS}), _stream_answer(events))
        servers = [await loop.create_server(partial(_FixedAnswer, answer), "127.0.0.1", 0) for answer in answers]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(serve())


@dataclass(frozen=True, slots=True)
class _Timed:
    seconds: float
    latencies: list[float]

    def line(self, name: str, cpu_s: float | None = None) -> str:
        rate = len(self.latencies) / self.seconds
        p50, p99 = (statistics.quantiles(self.latencies, n=100)[i] * 1e3 for i in (49, 98))
        cpu = "" if cpu_s is None else f"  cpu {cpu_s / len(self.latencies) * 1e6:6.0f} us/request"
        return f"{name:7} {rate:8.0f} requests/s  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms{cpu}"


async def _load(url: str, requests: int, concurrency: int, body: bytes) -> _Timed:
    latencies: list[float] = []
    turns = iter(range(requests))

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in turns:
            start = time.perf_counter()
            async with session.post(url, data=body) as answer:
                await answer.read()
                answer.raise_for_status()
            latencies.append(time.perf_counter() - start)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker(session))
        return _Timed(time.perf_counter() - start, latencies)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure(args: argparse.Namespace, prefill: str, decode: str) -> None:
    command = [sys.executable, "-m", "harness.proxy", "--prefill", prefill, "--decode", decode, "--port", "0"]
    body = json.dumps({"prompt": list(range(args.prompt_tokens)), "stream": True, "max_tokens": args.events}).encode()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None  # noqa: S101 - narrows the type
            url = proxy.stdout.readline().split()[3]
            for name, base in (("direct", decode), ("proxied", url)):
                path = f"{base}/v1/completions"
                uvloop.run(_load(path, args.requests // 10, args.concurrency, body))
                before = _cpu_seconds(proxy.pid)
                timed = uvloop.run(_load(path, args.requests, args.concurrency, body))
                cpu = _cpu_seconds(proxy.pid) - before if base == url else None
                print(timed.line(name, cpu), flush=True)
        finally:
            proxy.terminate()


def main() -> None:
    """Print requests per second and latencies, without and with the proxy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--events", type=int, default=64, help="events per streamed answer")
    parser.add_argument("--prompt-tokens", type=int, default=400)
    args = parser.parse_args()
    here, there = multiprocessing.Pipe()
    servers = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, args.events), daemon=True)
    servers.start()
    try:
        prefill, decode = (f"http://127.0.0.1:{port}" for port in here.recv())
        _measure(args, prefill, decode)
    finally:
        servers.terminate()
        servers.join()


if __name__ == "__main__":
    main()
