"""Compares the throughput of a load that one process sends with that of the same load sent by several workers.

    python -m bench.workers --client-cores 0,1 --workers 1 2 --rounds 5

Each way is a whole phase, as in a run: every token parsed and timed, every operation recorded in memory and in a
journal. ``alone`` is the main process without workers. The servers (``bench.stub``) are other processes and write
prepared answers. The ways take turns, round by round; rates and ratios are medians of the rounds.

``streams/s`` is over the time of the load: from the first request's sending to the last answer's end. What comes
before (the workers' start, the requests' way to them, the setting of their clocks) is not in it. ``stored after`` says
how long after the load's end everything was in the journal: a main process that does not keep up shows there.

N workers have a core each, the first N of ``--client-cores``, and the main process runs on the same cores, unless
``--main-core`` gives it one. So N workers are compared with one on as many cores as they use in all. The servers have
the machine's other cores; if there are none, they share, which the first line says, and rates mean little. The last
column does not depend on it: it is the rate at which the busiest process would use a whole core. Linux only.
"""

import argparse
import gc
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

from bench.cores import Cores, apart, core_list, spelled
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

    seconds: float
    """From the first sending to the last end."""
    stored_after: float
    """Seconds from the last end until the journal had everything."""
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
    cores = _cores(options)
    print(cores, flush=True)
    with _serving(options, cores.servers) as (urls, pids):
        found = uvloop.run(_measure(urls, pids, options, cores))
    print("\n".join(table(found, options.streams)))


def _cores(options: argparse.Namespace) -> Cores:
    available = frozenset(os.sched_getaffinity(0))
    clients = options.client_cores or apart(available)[: max(options.workers)]
    if len(clients) < max(options.workers):
        raise SystemExit(f"{max(options.workers)} workers need as many --client-cores: there are {len(clients)}.")
    if options.main_core is not None and options.main_core not in available:
        raise SystemExit(f"--main-core {options.main_core}: this process may use {spelled(sorted(available))}.")
    return Cores.of(clients, options.main_core, available)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=4000, help="streams in all (4000)")
    parser.add_argument("--concurrency", type=int, default=64, help="streams at a time (64)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--pieces", type=int, default=16, help="writes per stream (16)")
    parser.add_argument("--prompt", type=int, default=200, help="prompt tokens (200)")
    parser.add_argument("--servers", type=int, default=1, help="server processes (1)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (3)")
    cores = "cores of the workers, such as 0-3 (the first ones, as many as workers)"
    parser.add_argument("--client-cores", type=core_list, help=cores)
    parser.add_argument("--main-core", type=int, help="a core for the main process alone (it shares the workers')")
    return parser.parse_args()


@contextmanager
def _serving(options: argparse.Namespace, cores: Sequence[int]) -> Iterator[tuple[list[str], list[int]]]:
    """URLs and process ids of servers, which are ended at the end."""
    shape = [f"--{name}={getattr(options, name)}" for name in ("tokens", "pieces", "prompt")]
    command = [sys.executable, "-m", "bench.stub", "--logprobs=2", *shape]
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.servers)]
    for number, one in enumerate(servers):
        # A core each if there are as many: they never wait, and would be moved from one to the other.
        os.sched_setaffinity(one.pid, {cores[number]} if len(servers) <= len(cores) else {*cores})
    try:
        yield [_first_line(one) for one in servers], [one.pid for one in servers]
    finally:
        for one in servers:
            one.kill()
            one.communicate()


def _first_line(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    return server.stdout.readline().strip()


async def _measure(
    urls: list[str], servers: list[int], options: argparse.Namespace, cores: Cores
) -> dict[int, list[Measured]]:
    found: dict[int, list[Measured]] = {number: [] for number in (ALONE, *options.workers)}
    for _ in range(options.rounds):
        for number, measured in found.items():
            os.sched_setaffinity(0, cores.of_main(number))
            gc.collect()
            measured.append(await _once(number, urls, servers, options, cores))
    return found


async def _once(
    number: int, urls: list[str], servers: list[int], options: argparse.Namespace, cores: Cores
) -> Measured:
    """Send the load from so many workers."""
    clock, sending, deployment = MonotonicClock(), Sending(), _deployment(urls)
    async with AsyncExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        journal = opened.enter_context(JournalWriter(directory / "journal"))
        record = Recorder(journal.record)
        loading: Loading = load_here
        pids: list[int] = []
        if number:
            workers = await opened.enter_async_context(local_workers(number))
            pids = [cast("ProcessWorker", worker).pid for worker in workers]
            for pid, core in zip(pids, cores.of_workers(number), strict=True):
                os.sched_setaffinity(pid, {core})
            fleet = Fleet(workers, clock)
            await fleet.set_up(deployment, sending)
            loading = fleet.load
        client = await opened.enter_async_context(client_of(deployment, sending, clock))
        before = _cpu(servers), time.process_time(), _cpu(pids)
        await run_scenario(
            _load(options), send=client.send, counters=_NoCounters(), record=record, clock=clock, load=loading
        )
        journal.flush()
        stored, own = clock.now(), time.process_time() - before[1]
        used = _grown(before[0], _cpu(servers)), _grown(before[2], _cpu(pids))
    began, ended = _span(record, options.streams)
    return Measured(ended - began, stored - ended, used[0], own, used[1])


def _span(record: Recorder, streams: int) -> tuple[float, float]:
    """When the first request was sent and the last answer ended."""
    operations = record.history.operations()
    whole = sum(operation.outcome is Outcome.OK for operation in operations)
    if whole < streams:
        raise SystemExit(f"Only {whole} of {streams} streams are complete, so the figures mean nothing.")
    return min(one.sent.at for one in operations), max(one.ended.at for one in operations)


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


def table(found: dict[int, list[Measured]], streams: int) -> Iterator[str]:
    """The measurements for a reader: a line for each way of sending."""
    yield (
        "sent by     streams/s  : alone  : 1 worker  stored after  servers busy  "
        "CPU ms/stream: servers   main  workers  streams/s with a core for each process"
    )
    for number, rounds in found.items():
        name = "alone" if number == ALONE else f"{number} worker{'s' * (number > 1)}"
        rate = statistics.median(streams / one.seconds for one in rounds)
        ratios = [_ratio(rounds, found.get(other, ())) for other in (ALONE, 1)]
        stored = statistics.median(one.stored_after for one in rounds)
        busy = statistics.median(max(one.servers) / one.seconds for one in rounds)
        beside = f"{ratios[0]:>8} {ratios[1]:>11} {stored:10.2f} s {busy:13.0%}"
        yield f"{name:10} {rate:10,.0f} {beside}  {_costs(rounds, streams)}"


def _ratio(rounds: Sequence[Measured], others: Sequence[Measured]) -> str:
    """How many times as much was sent as in the other way; each round is compared with itself."""
    if not others:
        return "-"
    return f"{statistics.median(other.seconds / one.seconds for one, other in zip(rounds, others, strict=True)):.2f}"


def _costs(rounds: Sequence[Measured], streams: int) -> str:
    one = sorted(rounds, key=lambda one: one.seconds)[len(rounds) // 2]
    each = [1000 * cpu / streams for cpu in (sum(one.servers), one.main, sum(one.workers))]
    limit = statistics.median(streams / measured.busiest[0] for measured in rounds)
    return f"{each[0]:22.2f} {each[1]:6.2f} {each[2]:8.2f}  {limit:,.0f} (the {one.busiest[1]} limits)"


if __name__ == "__main__":
    main()
