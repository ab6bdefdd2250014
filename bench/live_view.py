"""Measures what the live view and the sampling of metrics cost the client that sends the load.

    python -m bench.live_view --rounds 5
    python -m bench.live_view --rounds 5 --tokens 16

The same load is sent with them and without them, in turns, in one process, as in a run: recorded in memory and in a
journal. The live view draws on a pseudo-terminal that another process reads; two servers' metrics, a real decode
server's text, are read once a second from a third, and their states are followed. ``bench.stub`` answers the load. In
each round both ways are measured four times, in alternating order, and each pair gives a ratio of the client's CPU
time per stream, drawing, journal and sampling included, and one of streams per second. Printed are the medians of the
ratios with their 95 % intervals (order statistics). On a busy machine only the CPU time means something. Linux only.
"""

import argparse
import asyncio
import contextlib
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import uvloop
from rich.console import Console
from scipy.stats import quantile_test

from bench.beside import _complete, _deployment, _NoCounters
from harness.clock import Clock, MonotonicClock
from harness.facts import Role, Server
from harness.load.health import LoopLag
from harness.observe.monitor import monitoring
from harness.observe.states import ServerStates
from harness.observer import SILENT
from harness.reports import LiveProgress
from harness.run import Recorder, Sending
from harness.run.runner import run_scenario
from harness.run.transport import client_of
from harness.scenario import Phase, Request, Sampling, Scenario
from harness.store.journal import JournalWriter

_METRICS = Path(__file__).parents[1] / "tests" / "data" / "metrics_decode.txt"
_PAIRS = 4
"""Pairs of a round."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One load."""

    cpu_ms: float
    """CPU milliseconds of this process per stream."""
    streams_per_s: float


def main() -> None:
    """Measure both ways in turns."""
    options = _options()
    pairs: list[tuple[Measured, Measured]] = []
    with _stub(options) as url, _metrics() as metrics:
        for number in range(options.rounds * _PAIRS):
            order = (False, True) if number % 2 else (True, False)
            found = {shown: uvloop.run(_once(url, metrics, options, shown=shown)) for shown in order}
            pairs.append((found[True], found[False]))
    print(f"{len(pairs)} pairs of {options.streams:,} streams of {options.tokens} tokens")
    _show("CPU ms per stream", [(one.cpu_ms, other.cpu_ms) for one, other in pairs])
    _show("streams per second", [(one.streams_per_s, other.streams_per_s) for one, other in pairs])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help=f"rounds of {_PAIRS} pairs (5)")
    parser.add_argument("--streams", type=int, default=3000, help="streams per load (3000)")
    parser.add_argument("--concurrency", type=int, default=64, help="streams at a time (64)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--logprobs", type=int, default=5, help="log-probabilities per token (5)")
    return parser.parse_args()


def _show(name: str, pairs: Sequence[tuple[float, float]]) -> None:
    ratios = [one / other for one, other in pairs]
    interval = quantile_test(ratios, q=1.0, p=0.5).confidence_interval(0.95)
    shown, hidden = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name:20} {shown:10,.3f} with, {hidden:10,.3f} without; median ratio {statistics.median(ratios):.4f} "
        f"({interval.low:.4f} to {interval.high:.4f})"
    )


@contextmanager
def _stub(options: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.stub", f"--logprobs={options.logprobs}", f"--tokens={options.tokens}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # noqa: S101 - for mypy: it is a pipe
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@contextmanager
def _metrics() -> Iterator[str]:
    """The address of a server of real metrics."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "metrics").write_bytes(_METRICS.read_bytes())
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None  # noqa: S101 - for mypy: it is a pipe
                yield f"http://127.0.0.1:{server.stdout.readline().split('port ')[1].split()[0]}"
            finally:
                server.kill()


@contextmanager
def _terminal() -> Iterator[Console]:
    """A console on a pseudo-terminal of 100 columns and 30 rows, which another process reads."""
    own, other = pty.openpty()
    ioctl(other, TIOCSWINSZ, pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen(["cat"], stdin=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        os.close(own)
        with os.fdopen(other, "w") as stream:
            yield Console(file=stream, force_terminal=True, highlight=False)
        reader.wait()


async def _once(url: str, metrics: str, options: argparse.Namespace, *, shown: bool) -> Measured:
    clock, load = MonotonicClock(), _load(options)
    servers = [Server(f"{role}-0", role, metrics) for role in Role]
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        record = Recorder(opened.enter_context(JournalWriter(directory / "journal")).record)
        view = opened.enter_context(LiveProgress(opened.enter_context(_terminal()), clock)) if shown else None
        if view is not None:
            opened.enter_context(record.telling(view.recorded))
        async with (
            client_of(_deployment(url), Sending(), clock) as client,
            LoopLag(clock),
            _followed(servers, clock, opened, record, view),
            monitoring(servers, {}, clock, record, 1.0 if shown else 0.0),
        ):
            began, cpu = time.perf_counter(), time.process_time()
            await run_scenario(
                load, send=client.send, counters=_NoCounters(), record=record, clock=clock, observer=view or SILENT
            )
            wall, own = time.perf_counter() - began, time.process_time() - cpu
    _complete(record.history, options.streams)
    return Measured(1000 * own / options.streams, options.streams / wall)


@asynccontextmanager
async def _followed(
    servers: Sequence[Server], clock: Clock, opened: ExitStack, record: Recorder, view: LiveProgress | None
) -> AsyncIterator[None]:
    """The states of the servers are followed while the context lasts, if there is a view."""
    if view is None:
        yield
        return
    states = ServerStates(servers, clock, view.server)
    opened.enter_context(record.telling(states.recorded))
    async with states.followed({}):
        yield


def _load(options: argparse.Namespace) -> Scenario:
    prompt, sampling = tuple(range(200)), Sampling(options.tokens, logprobs=options.logprobs)
    requests = tuple(Request(f"bench-{n}", prompt, sampling) for n in range(options.streams))
    return Scenario("bench", "", (Phase("load", requests, options.concurrency, counted=False),))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        main()
