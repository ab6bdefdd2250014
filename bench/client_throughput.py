"""Measures how many streams per second one core of the client can read, with every token parsed and timed.

    python bench/client_throughput.py --streams 4000 --concurrency 64 --tokens 20

The server is another process and costs almost nothing: it writes prepared answers, one write per token (or per
``--burst`` tokens), in vLLM's form and size, with log-probabilities. Rates are printed per second of wall time and of
the client's CPU time, which is the rate of a core if the server has other cores. Latencies of this server mean nothing.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from harness.clock import MonotonicClock
from harness.history import Outcome
from harness.load.client import Client
from harness.scenario import Request, Route, Sampling

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def main() -> None:
    """Run the client against the server, and stop the server."""
    options = _options()
    receiver, sender = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(sender, options.tokens, options.burst), daemon=True)
    server.start()
    try:
        uvloop.run(_measure(f"http://127.0.0.1:{receiver.recv()}", options))
    finally:
        server.terminate()
        server.join()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=4000, help="streams in all (4000)")
    parser.add_argument("--concurrency", type=int, default=64, help="streams at a time (64)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per stream (20)")
    parser.add_argument("--burst", type=int, default=1, help="tokens per write of the server (1)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens (200)")
    return parser.parse_args()


async def _measure(url: str, options: argparse.Namespace) -> None:
    sampling = Sampling(options.tokens, logprobs=2)
    prompt = tuple(range(options.prompt))
    requests = iter([Request(f"bench-{n}", prompt, sampling) for n in range(options.streams)])
    async with Client({Route.PROXY: [url]}, model="m", clock=MonotonicClock(), timeout=60) as client:

        async def work() -> int:
            return sum([(await client.send(request)).outcome is Outcome.OK for request in requests])

        wall, cpu = time.perf_counter(), time.process_time()
        whole = sum(await asyncio.gather(*(work() for _ in range(options.concurrency))))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{whole} of {options.streams} streams complete, {options.tokens} tokens each, "
        f"{options.concurrency} at a time: {whole / wall:,.0f} streams/s of wall time, {whole / cpu:,.0f} streams/s "
        f"and {whole * options.tokens / cpu:,.0f} tokens/s per core of the client"
    )
    if whole < options.streams:
        raise SystemExit("Some streams are incomplete, so the figures above mean nothing.")


def _serve(port: Connection, tokens: int, burst: int) -> None:
    uvloop.run(_answer_forever(port, _writes(tokens, burst)))


async def _answer_forever(port: Connection, writes: list[bytes]) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Server(writes), "127.0.0.1", 0)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Server(asyncio.Protocol):
    """Minimal HTTP: the answer is written when a body of the request's Content-Length has arrived."""

    def __init__(self, writes: list[bytes]) -> None:
        self._writes = writes
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._received = b""
            self._write_from(0)

    def _write_from(self, number: int) -> None:
        """One write per turn of the event loop, as tokens come; several writes in one turn would arrive together."""
        self._transport.write(self._writes[number])
        if number + 1 < len(self._writes):
            asyncio.get_running_loop().call_soon(self._write_from, number + 1)


def _writes(tokens: int, burst: int) -> list[bytes]:
    chunks = [_event(_chunk(n, last=n == tokens - 1)) for n in range(tokens)]
    bursts = [b"".join(chunks[start : start + burst]) for start in range(0, tokens, burst)]
    counts = {"prompt_tokens": 200, "completion_tokens": tokens, "total_tokens": 200 + tokens}
    end = _event({"id": "cmpl-1", "choices": [], "usage": counts}) + _http(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [_HEAD + bursts[0], *bursts[1:], end]


def _chunk(number: int, *, last: bool) -> dict[str, object]:
    token = 1000 + number
    logprobs = {
        "text_offset": [number],
        "token_logprobs": [-0.123456789],
        "tokens": [f"token_id:{token}"],
        "top_logprobs": [{f"token_id:{token}": -0.123456789, "token_id:7": -2.3456789}],
    }
    choice = {
        "index": 0,
        "text": " word",
        "logprobs": logprobs,
        "finish_reason": "length" if last else None,
        "stop_reason": None,
        "prompt_token_ids": None if number else list(range(200)),
        "token_ids": [token],
    }
    return {"id": "cmpl-bench", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def _event(message: dict[str, object]) -> bytes:
    return _http(b"data: " + json.dumps(message).encode() + b"\n\n")


def _http(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


if __name__ == "__main__":
    main()
