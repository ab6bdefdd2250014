"""Measures what this machine's client can do, and how near a stored run came to it.

    python -m bench.roofline
    python -m bench.roofline results/latest

The client reads streams from a stub on another core, as fast as it can, at several concurrencies. Its processor time
tells how many streams and tokens per second one core can read: the roofline. Below it the client is not what limits a
load; near it, arrivals wait for the client, and latencies contain that wait. With a run's directory, the streams are
those of the run (tokens, log-probabilities), and the run's own use of a core is shown beside it.

Log-probabilities are what costs most: the harness asks for 5 with each token, to compare first tokens.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

from harness.clock import MonotonicClock
from harness.history import ClientHealth, History, Outcome
from harness.load.client import Client
from harness.scenario import Request, Route, Sampling
from harness.store import load_run

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one core of the client can read."""

    concurrency: int
    streams: float
    """Per second of processor time."""
    wall: float
    """Streams per second of wall time: lower where the stub or other processes are the limit."""


@dataclass(frozen=True, slots=True)
class Load:
    """The streams that are read."""

    tokens: int
    logprobs: int
    prompt: int


def main() -> None:
    """Print the roofline, and where a run stands below it."""
    options = _options()
    history = load_run(options.run)[1] if options.run else None
    load = Load(options.tokens, options.logprobs, options.prompt) if history is None else _load_of(history)
    print(
        f"streams of {load.tokens} events, a token each, {load.logprobs} log-probabilities, prompts of {load.prompt}:"
    )
    with _stub(load) as url:
        ceilings = [uvloop.run(_measure(url, load, at, options.streams)) for at in options.concurrency]
    for one in ceilings:
        print(
            f"  {one.concurrency:5} at a time: {one.streams:7,.0f} streams/s and {one.streams * load.tokens:9,.0f} "
            f"tokens/s of a core ({one.wall:,.0f} streams/s here)"
        )
    if history is not None:
        print(_place(history, median(one.streams for one in ceilings)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN_DIR", help="a run whose streams are taken")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--logprobs", type=int, default=5, help="log-probabilities per token (5)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens (200)")
    parser.add_argument("--streams", type=int, default=1000, help="streams at each concurrency (1000)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 128, 512], help="(1 32 128 512)")
    return parser.parse_args()


def _load_of(history: History) -> Load:
    done = [one for one in history.operations() if one.request.of_load and one.outcome is Outcome.OK]
    if not done:
        raise SystemExit("The run has no complete answer, so its load is not known.")
    tokens = [len(one.ended.choices[0].token_ids) for one in done]
    asked = [one.request.sampling.logprobs or 0 for one in done]
    prompts = [len(one.prompt_token_ids or ()) for one in done]
    return Load(int(median(tokens)), int(median(asked)), int(median(prompts)))


@contextmanager
def _stub(load: Load) -> Iterator[str]:
    flags = [f"--{name}={getattr(load, name)}" for name in ("tokens", "logprobs", "prompt")]
    command = [sys.executable, "-m", "bench.stub", f"--pieces={load.tokens}", *flags]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        try:
            yield (process.stdout or sys.stdin).readline().strip()
        finally:
            process.kill()


async def _measure(url: str, load: Load, concurrency: int, streams: int) -> Ceiling:
    sampling = Sampling(load.tokens, logprobs=load.logprobs or None)
    prompt = tuple(range(load.prompt))
    async with Client({Route.PROXY: [url]}, model="m", clock=MonotonicClock(), timeout=120) as client:

        async def read(count: int) -> int:
            requests = iter([Request(f"roofline-{n}", prompt, sampling) for n in range(count)])

            async def work() -> int:
                return sum([(await client.send(one)).outcome is Outcome.OK for one in requests])

            return sum(await asyncio.gather(*(work() for _ in range(concurrency))))

        await read(concurrency)
        wall, cpu = time.perf_counter(), time.process_time()
        whole = await read(streams)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if whole < streams:
        raise SystemExit(f"{streams - whole} of {streams} streams are incomplete, so the figures mean nothing.")
    return Ceiling(concurrency, streams / cpu, streams / wall)


def _place(history: History, ceiling: float) -> str:
    """How near the run's client came to what a core can read."""
    done = [one for one in history.operations() if one.request.of_load and one.outcome is Outcome.OK]
    seconds = max(one.ended.at for one in done) - min(one.sent.at for one in done)
    used = max((one.cpu_share for one in history.of(ClientHealth)), default=float("nan"))
    rate = len(done) / seconds if seconds > 0 else float("nan")
    return (
        f"the run: {rate:,.0f} streams/s, {rate / ceiling:.0%} of what a core can read; its client used {used:.0%} of "
        "a core, in which all else that it did while the load was sent is included"
    )


if __name__ == "__main__":
    main()
