"""Workers that are processes: what they send, and how they end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from aiohttp import web
from load_wire import serving, streams, whole_stream
from observed_journal import Journal
from polling import until
from process_state import alive

from harness.clock import MonotonicClock
from harness.errors import HarnessError, UsageError
from harness.facts import Deployment, Role, Server
from harness.fleet.fleet import Fleet
from harness.fleet.processes import ProcessWorker, local_workers
from harness.fleet.remote import WorkerLost
from harness.history import ClockCompared, Ending, Outcome
from harness.run import Sending
from harness.run.runner import run_scenario
from harness.scenario import Phase, Request, Sampling, Scenario


def load(size: int) -> Scenario:
    requests = tuple(Request(f"r-{n}", (1, 2, 3), Sampling(3, logprobs=2)) for n in range(size))
    return Scenario("s", "", (Phase("load", requests, 4),))


def deployment(url: str) -> Deployment:
    servers = Server("prefill-0", Role.PREFILL, url), Server("decode-0", Role.DECODE, url)
    return Deployment(servers, url, "m")


class Running:
    """A fleet of two processes in front of a server, and the pids of the processes."""

    def __init__(self, fleet: Fleet, pids: list[int], clock: MonotonicClock) -> None:
        self.fleet, self.pids = fleet, pids
        self._clock = clock

    async def carry_out(self, scenario: Scenario, journal: Journal) -> None:
        async def send(request: Request) -> Any:
            raise AssertionError(request)

        await run_scenario(
            scenario, send=send, counters=journal, record=journal.record, clock=self._clock, load=self.fleet.load
        )


async def running(opened: AsyncExitStack, url: str, headers: Mapping[str, str] | None = None) -> Running:
    clock = MonotonicClock()
    workers = await opened.enter_async_context(local_workers(2))
    fleet = Fleet(workers, clock)
    await fleet.set_up(deployment(url), Sending(headers=headers or {}))
    return Running(fleet, [cast("ProcessWorker", worker).pid for worker in workers], clock)


async def test_processes_send_stamp_and_end() -> None:
    seen: set[str] = set()
    answering = streams(whole_stream())

    async def script(request: web.Request) -> web.StreamResponse:
        seen.add(request.headers["X-Tenant"])
        return await answering(request)

    journal = Journal()
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(serving(script))
        run = await running(opened, url, {"X-Tenant": "blue"})
        await run.carry_out(load(9), journal)
    ends = journal.ends()
    assert {end.outcome for end in ends.values()} == {Outcome.OK}
    assert len(ends) == 9
    assert all(len(end.token_times) == 3 for end in ends.values())
    assert seen == {"blue"}
    compared = [one for one in journal if isinstance(one, ClockCompared)]
    assert [one.ahead for one in compared] == [0.0, 0.0], "processes of one machine share its clock"
    assert not any(alive(pid) for pid in run.pids)


async def _hold(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_killed_process_leaves_no_operation_open() -> None:
    journal = Journal()
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(serving(_hold))
        run = await running(opened, url)
        running_ = asyncio.create_task(run.carry_out(load(9), journal))
        await until(lambda: len(journal.sents()) == 4)
        for pid in run.pids:
            os.kill(pid, signal.SIGKILL)
        await running_
    assert {end.ending for end in journal.ends().values()} == {Ending.CLIENT_CRASHED}
    assert len(journal.ends()) == 4
    assert "signal 9 (SIGKILL)" in journal.ends()["r-0"].cause
    assert {one.name for one in run.fleet.died()} == {"worker-0", "worker-1"}


async def test_an_interrupted_process_reports_what_was_in_flight() -> None:
    journal = Journal()
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(serving(_hold))
        run = await running(opened, url)
        running_ = asyncio.create_task(run.carry_out(load(9), journal))
        await until(lambda: len(journal.sents()) == 4)
        running_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_
    assert {end.ending for end in journal.ends().values()} == {Ending.INTERRUPTED}
    assert not any(alive(pid) for pid in run.pids)


async def test_a_server_that_a_worker_does_not_reach_is_named_before_anything_is_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with AsyncExitStack() as opened:
        with pytest.raises(UsageError, match=f"does not reach {url}"):
            await running(opened, url)


async def test_a_failure_inside_a_process_is_raised_here() -> None:
    async with local_workers(1) as (worker,):
        with pytest.raises(HarnessError, match="fetch: RuntimeError: no part has begun"):
            await worker.call("fetch")
        assert await worker.call("hello")


async def test_a_stopped_process_is_ended_too() -> None:
    async with local_workers(1) as workers:
        worker = cast("ProcessWorker", workers[0])
        await worker.call("hello")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost, match="signal 9"):
            await worker.call("hello")
        with pytest.raises(WorkerLost, match="signal 9"):
            await worker.call("hello")
    assert not alive(worker.pid)


_MAIN = """
import asyncio
from harness.fleet.processes import local_workers
async def main():
    async with local_workers(2) as workers:
        for worker in workers:
            await worker.call("hello")
        print(*(worker.pid for worker in workers), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_processes_end_when_the_main_process_is_killed() -> None:
    main = subprocess.Popen(  # noqa: ASYNC220 - its output is read before anything else runs
        [sys.executable, "-c", _MAIN], stdout=subprocess.PIPE, text=True
    )
    assert main.stdout is not None
    pids = [int(word) for word in main.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    main.kill()
    main.communicate()
    await until(lambda: not any(map(alive, pids)))
