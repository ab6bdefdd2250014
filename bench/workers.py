"""Compares the throughput of a load that one process sends with that of the same load sent by several workers.

    python -m bench.workers --streams 4000 --workers 1 2 --repeats 3

Each way is a whole phase, as in a run: every token parsed and timed, every operation recorded in memory and in a
journal. ``alone`` is the main process without workers. The servers (``bench.stub``) are other processes and write
prepared answers. The ways take turns, and medians are printed: streams per second of wall time, and the milliseconds of
CPU time per stream of the servers, of the main process, and of the workers together.

Wall time depends on how many cores are free: N workers need N, and the servers and the main process some. The last
column does not: it is the rate at which the busiest process would use a whole core, if each had one. Linux only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from harness.clock import MonotonicClock
from harness.facts import Deployment, Role, Server
from harness.fleet.fleet import Fleet
from harness.fleet.processes import ProcessWorker, local_workers
from harness.history import Outcome
from harness.run import Recorder, Sending
from harness.run.runner import Loading, load_here, run_scenario
from harness.run.transport import client_of
from harness.scenario import Phase, Request, Sampling, Scenario
from harness.store.journal import JournalWriter

ALONE = 0
"""In place of a number of workers: the main process sends."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of sending, measured once."""

    wall: float
    """Seconds."""
    servers: tuple[float, ...]
    """CPU seconds of each server."""
    main: float
    """CPU seconds of the main process."""
    workers: tuple[float, ...]
    """CPU seconds of each worker."""

    @property
    def busiest(self) -> tuple[float, str]:
        """CPU seconds of the busiest process, and what it is."""
        server, worker = max(self.servers), max(self.workers, default=0.0)
        return max((server, "server"), (self.main, "main process"), (worker, "worker"))


def main() -> None:
    """Measure each way in front of the same servers."""
    options = _options()
    with _serving(options) as (urls, pids):
        found = uvloop.run(_measure(urls, pids, options))
    print("\n".join(_table(found, options.streams)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=4000, help="streams in all (4000)")
    parser.add_argument("--concurrency", type=int, default=64, help="streams at a time (64)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--pieces", type=int, default=16, help="writes per stream (16)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens (200)")
    parser.add_argument("--servers", type=int, default=1, help="server processes (1)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (1 2)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way (3)")
    return parser.parse_args()


@contextmanager
def _serving(options: argparse.Namespace) -> Iterator[tuple[list[str], list[int]]]:
    """URLs and process ids of servers, which are ended at the end."""
    shape = [f"--{name}={getattr(options, name)}" for name in ("tokens", "pieces", "prompt")]
    command = [sys.executable, "-m", "bench.stub", "--logprobs=2", *shape]
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.servers)]
    try:
        yield [_first_line(one) for one in servers], [one.pid for one in servers]
    finally:
        for one in servers:
            one.kill()
            one.communicate()


def _first_line(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    return server.stdout.readline().strip()


async def _measure(urls: list[str], servers: list[int], options: argparse.Namespace) -> dict[int, list[Measured]]:
    found: dict[int, list[Measured]] = {number: [] for number in (ALONE, *options.workers)}
    for _ in range(options.repeats):
        for number, measured in found.items():
            measured.append(await _once(number, urls, servers, options))
    return found


async def _once(number: int, urls: list[str], servers: list[int], options: argparse.Namespace) -> Measured:
    """Send the load from so many workers."""
    clock, sending, deployment = MonotonicClock(), Sending(), _deployment(urls)
    async with AsyncExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        record = Recorder(opened.enter_context(JournalWriter(directory / "journal")).record)
        loading: Loading = load_here
        workers = await opened.enter_async_context(local_workers(number))
        if workers:
            fleet = Fleet(workers, clock)
            await fleet.set_up(deployment, sending)
            loading = fleet.load
        client = await opened.enter_async_context(client_of(deployment, sending, clock))
        pids = [cast("ProcessWorker", worker).pid for worker in workers]
        before = _cpu(servers), time.process_time(), _cpu(pids), time.perf_counter()
        await run_scenario(
            _load(options), send=client.send, counters=_NoCounters(), record=record, clock=clock, load=loading
        )
        wall, own = time.perf_counter() - before[3], time.process_time() - before[1]
        used = _grown(before[0], _cpu(servers)), _grown(before[2], _cpu(pids))
    _refuse_incomplete(record, options.streams)
    return Measured(wall, used[0], own, used[1])


def _deployment(urls: list[str]) -> Deployment:
    """Without a proxy, requests go to the decode servers, one after another."""
    return Deployment(tuple(Server(f"decode-{n}", Role.DECODE, url) for n, url in enumerate(urls)), None, "m")


def _load(options: argparse.Namespace) -> Scenario:
    prompt, sampling = tuple(range(options.prompt)), Sampling(options.tokens, logprobs=2)
    requests = tuple(Request(f"bench-{n}", prompt, sampling) for n in range(options.streams))
    return Scenario("bench", "", (Phase("load", requests, options.concurrency, counted=False),))


class _NoCounters:
    """The servers have no counters."""

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Do nothing."""

    def disturbed(self) -> None:
        """Do nothing."""


def _cpu(pids: Sequence[int]) -> tuple[float, ...]:
    """CPU seconds of processes so far: user and system time, fields 14 and 15 of /proc/PID/stat."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return tuple((int(one[11]) + int(one[12])) / os.sysconf("SC_CLK_TCK") for one in fields)


def _grown(before: Sequence[float], after: Sequence[float]) -> tuple[float, ...]:
    return tuple(now - was for was, now in zip(before, after, strict=True))


def _refuse_incomplete(record: Recorder, streams: int) -> None:
    whole = sum(operation.outcome is Outcome.OK for operation in record.history.operations())
    if whole < streams:
        raise SystemExit(f"Only {whole} of {streams} streams are complete, so the figures mean nothing.")


def _table(found: dict[int, list[Measured]], streams: int) -> Iterator[str]:
    middle = {number: sorted(all_, key=lambda one: one.wall)[len(all_) // 2] for number, all_ in found.items()}
    first = streams / middle[ALONE].wall
    yield "sent by     streams/s  ratio  CPU ms/stream: servers   main  workers  streams/s with a core for each process"
    for number, one in middle.items():
        name = "alone" if number == ALONE else f"{number} worker{'s' * (number > 1)}"
        rate = streams / one.wall
        each = [1000 * cpu / streams for cpu in (sum(one.servers), one.main, sum(one.workers))]
        limit = statistics.median(streams / measured.busiest[0] for measured in found[number])
        parts = f"{each[0]:22.2f} {each[1]:6.2f} {each[2]:8.2f}"
        yield f"{name:10} {rate:10,.0f} {rate / first:6.2f}  {parts}  {limit:,.0f} (the {one.busiest[1]} limits)"


if __name__ == "__main__":
    main()
