"""Measures whether the process that predicts counters beside a run disturbs the load.

    python -m bench.beside --streams 6000 --repeats 5
    python -m bench.beside --streams 6000 --repeats 5 --rate 400

The same load is sent with that process and without it, in turns, as in a run: recorded in memory and in a journal,
which the process follows. ``bench.stub`` answers; it takes a processor of its own, so that on two processors the three
processes share two, which is the worst case. Without ``--rate``, as many streams are in flight as ``--concurrency``
says. Printed are medians: streams a second, the client's own CPU time, its health as a run reports it, the CPU time of
the process, and how long after the load's end it had read all. No counters are predicted: that comes after the load
(``bench.judging``). Linux only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import uvloop

from harness.beside import FEWEST, Beside
from harness.clock import MonotonicClock
from harness.facts import Deployment, Role, Server
from harness.history import History, Outcome, RunEnded
from harness.load.health import LoopLag
from harness.run import Recorder, Sending
from harness.run.runner import run_scenario
from harness.run.transport import client_of
from harness.scenario import Phase, Request, Sampling, Scenario
from harness.store.journal import JournalWriter


@dataclass(frozen=True, slots=True)
class Measured:
    """One load."""

    streams_per_s: float
    client_ms: float
    """CPU milliseconds of the client's process per stream."""
    mean_lag_ms: float
    worst_lag_ms: float
    late_ms: float
    """The largest delay of a sending, milliseconds."""
    beside_ms: float = 0.0
    """CPU milliseconds of the process per stream."""
    behind_s: float = 0.0
    """Seconds from the load's end until the process had read all."""


def main() -> None:
    """Measure both ways in turns."""
    options = _options()
    ways: dict[bool, list[Measured]] = {False: [], True: []}
    with _serving() as url:
        for _ in range(options.repeats):
            for with_process, found in ways.items():
                found.append(uvloop.run(_once(url, options, with_process=with_process)))
    print(f"{'':8}" + "".join(f"{item.name:>15}" for item in fields(Measured)))
    for with_process, found in ways.items():
        medians = [statistics.median(column) for column in zip(*map(astuple, found), strict=True)]
        print(f"{'with' if with_process else 'without':8}" + "".join(f"{value:>15,.3f}" for value in medians))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=6000, help=f"streams, {FEWEST} at least (6000)")
    parser.add_argument("--concurrency", type=int, default=64, help="streams at a time (64)")
    parser.add_argument("--rate", type=float, help="streams sent per second, whatever is in flight")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each way (5)")
    return parser.parse_args()


@contextmanager
def _serving() -> Iterator[str]:
    command = [sys.executable, "-m", "bench.stub", "--logprobs=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # noqa: S101 - for mypy: it is a pipe
            yield server.stdout.readline().strip()
        finally:
            server.kill()


async def _once(url: str, options: argparse.Namespace, *, with_process: bool) -> Measured:
    clock, deployment, load = MonotonicClock(), _deployment(url), _load(options)
    lag = LoopLag(clock)
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        journal = opened.enter_context(JournalWriter(directory / "journal"))
        by = opened.enter_context(Beside(directory / "journal", directory / "log"))
        record = Recorder(journal.record)
        if with_process:
            by.begin(load, deployment)
            if by.pid is None:
                raise SystemExit(f"No process was started: give two processors, and {FEWEST} streams at least.")
        async with client_of(deployment, Sending(), clock) as client, lag:
            began, cpu = time.perf_counter(), time.process_time()
            await run_scenario(load, send=client.send, counters=_NoCounters(), record=record, clock=clock)
            wall, own = time.perf_counter() - began, time.process_time() - cpu
        record(RunEnded(clock.now()))
        used = _cpu_seconds(by.pid) if by.pid is not None else 0.0
        ended = time.perf_counter()
        by.predictions()
        behind = time.perf_counter() - ended if with_process else 0.0
    health = lag.health(one.sent for one in _complete(record.history, options.streams).operations())
    times = health.mean_loop_lag, health.worst_loop_lag, health.worst_send_delay
    each = 1000 / options.streams
    return Measured(options.streams / wall, own * each, *(1000 * one for one in times), used * each, behind)


def _deployment(url: str) -> Deployment:
    return Deployment((Server("decode-0", Role.DECODE, url),), None, "m")


def _load(options: argparse.Namespace) -> Scenario:
    prompt, sampling = tuple(range(200)), Sampling(128, logprobs=2)
    requests = tuple(Request(f"bench-{n}", prompt, sampling) for n in range(options.streams))
    due = tuple(n / options.rate for n in range(options.streams)) if options.rate else ()
    concurrency = options.streams if options.rate else options.concurrency
    return Scenario("bench", "", (Phase("load", requests, concurrency, counted=False, due=due),))


class _NoCounters:
    """The stub has no counters."""

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Do nothing."""

    def disturbed(self) -> None:
        """Do nothing."""


def _cpu_seconds(pid: int) -> float:
    """User and system time so far: fields 14 and 15 of /proc/PID/stat."""
    fields_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields_[11]) + int(fields_[12])) / os.sysconf("SC_CLK_TCK")


def _complete(history: History, streams: int) -> History:
    whole: Sequence[object] = [one for one in history.operations() if one.outcome is Outcome.OK]
    if len(whole) < streams:
        raise SystemExit(f"Only {len(whole)} of {streams} streams are complete, so the figures mean nothing.")
    return history


if __name__ == "__main__":
    main()
