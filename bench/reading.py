"""Sends requests to a stub with one client and prints its rates, as JSON. Run by ``bench.client``, in its own process.

Readers: ``harness``, the harness's client as it is; ``aiohttp``, the same client with every request through aiohttp and
every event read singly; ``bare``, which counts bytes and decodes nothing, as a measure of what the stub can serve.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvloop

from harness.clock import MonotonicClock
from harness.history import Outcome
from harness.load.client import Client
from harness.scenario import Endpoint, Request, Route, Sampling

Send = Callable[[Request], Awaitable[bool]]
"""Sends one request; whether the whole answer arrived."""

_END = b"0\r\n\r\n"


def main() -> None:
    """Measure one reader once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=("harness", "aiohttp", "bare"))
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--logprobs", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--chat", action="store_true")
    options = parser.parse_args()
    print(json.dumps(uvloop.run(_measure(options))))


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    if options.reader == "bare":
        return await _timed(_Bare(options).send, options)
    # An older checkout of the harness, which may be measured as well, has one way only.
    ways: dict[str, Any] = {"direct": False, "typed": False} if options.reader == "aiohttp" else {}
    routes = {Route.PROXY: [options.url]}
    async with Client(routes, model="m", clock=MonotonicClock(), timeout=60, **ways) as client:

        async def send(request: Request) -> bool:
            return (await client.send(request)).outcome is Outcome.OK

        await _timed(send, options, warm_up=True)
        return await _timed(send, options)


async def _timed(send: Send, options: argparse.Namespace, *, warm_up: bool = False) -> dict[str, float]:
    sampling = Sampling(options.tokens, logprobs=options.logprobs or None)
    asked: dict[str, Any] = {"prompt": tuple(range(options.prompt))}
    if options.chat:
        asked = {"prompt": "word " * options.prompt, "endpoint": Endpoint.CHAT}
    count = options.concurrency if warm_up else options.streams
    requests = iter([Request(f"bench-{n}", sampling=sampling, **asked) for n in range(count)])

    async def work() -> int:
        return sum([await send(request) for request in requests])

    wall, cpu = time.perf_counter(), time.process_time()
    whole = sum(await asyncio.gather(*(work() for _ in range(options.concurrency))))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if whole < count:
        raise SystemExit(f"{count - whole} of {count} streams are incomplete, so the figures mean nothing.")
    return {"wall": whole / wall, "cpu": whole / cpu}


class _Bare:
    """Sends prepared bytes and reads until the end of the answer."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._host, _, port = options.url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._idle: list[_Counter] = []
        self._request = b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b" " * 900

    async def send(self, _request: Request) -> bool:
        if not self._idle:
            _, opened = await asyncio.get_running_loop().create_connection(_Counter, self._host, self._port)
            self._idle.append(opened)
        connection = self._idle.pop()
        await connection.ask(self._request)
        self._idle.append(connection)
        return True


class _Counter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._ended

    def data_received(self, data: bytes) -> None:
        if data.endswith(_END):
            self._ended.set_result(None)


if __name__ == "__main__":
    main()
