"""Whether the client kept up, measured with a simulated clock."""

import asyncio
from collections import deque
from dataclasses import replace

from turns import turn

from harness.history import ClientHealth, Sent
from harness.load.health import LoopLag, worst_send_delay
from harness.scenario import Request


class Oversleeper:
    """A clock whose sleeps take longer than requested by the given seconds; after the last one, sleep never ends."""

    def __init__(self, *too_long: float) -> None:
        self._now = 0.0
        self._too_long = deque(too_long)
        self.over = asyncio.Event()

    def now(self) -> float:
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += seconds

    def again(self, *too_long: float) -> None:
        self._too_long.extend(too_long)
        self.over.clear()

    async def sleep(self, seconds: float) -> None:
        if not self._too_long:
            self.over.set()
            await asyncio.Event().wait()
        self._now += seconds + self._too_long.popleft()


def sent(at: float, due: float) -> Sent:
    return Sent(at, Request("r", ()), "s", "p", due)


async def test_the_longest_delay_of_the_loop_is_reported() -> None:
    clock = Oversleeper(0.0, 0.25, 0.125)
    cpu = iter((10.0, 10.75))
    async with LoopLag(clock, interval=0.5, cpu_seconds=lambda: next(cpu)) as lag:
        await clock.over.wait()
    health = lag.health([sent(2.0, 1.5), sent(4.0, 3.75)])
    assert replace(health, open_files=None, file_limit=None) == ClientHealth(
        at=1.875, worst_loop_lag=0.25, worst_send_delay=0.5, mean_loop_lag=0.125, cpu_share=0.4
    )


async def test_a_run_that_is_cancelled_while_the_watching_ends_stays_cancelled() -> None:
    """Ctrl-C may come at any moment; one that came at this one was lost, and the run went on."""
    running: list[asyncio.Task[None]] = []

    class Interrupting(Oversleeper):
        async def sleep(self, seconds: float) -> None:
            try:
                await super().sleep(seconds)
            finally:
                running[0].cancel()

    async def run() -> None:
        clock = Interrupting()
        async with LoopLag(clock):
            await clock.over.wait()
        await turn()

    running.append(asyncio.create_task(run()))
    await asyncio.wait(running)
    assert running[0].cancelled()


async def test_what_happens_between_two_loads_does_not_count() -> None:
    """Judging and planning take 100 s and all of the processor; both loads take 1 s and a quarter of it."""
    clock = Oversleeper(0.5)
    cpu = iter((10.0, 10.25, 110.25, 110.5))
    lag = LoopLag(clock, interval=0.5, cpu_seconds=lambda: next(cpu))
    async with lag:
        await clock.over.wait()
    clock.pass_by(100.0)
    clock.again(0.5)
    async with lag:
        await clock.over.wait()
    health = lag.health([])
    assert (health.cpu_share, health.worst_loop_lag, health.mean_loop_lag) == (0.25, 0.5, 0.5)


async def test_the_most_open_files_are_reported() -> None:
    clock = Oversleeper(*[0.0] * 120)
    counts = iter((3, 7, 5, 4))
    async with LoopLag(clock, open_files=lambda: next(counts)) as lag:
        await clock.over.wait()
    assert lag.health([]).open_files == 7


async def test_a_system_that_does_not_tell_open_files() -> None:
    clock = Oversleeper(0.0)
    async with LoopLag(clock, open_files=lambda: None) as lag:
        await clock.over.wait()
    assert lag.health([]).open_files is None


async def test_measuring_ends_with_the_context() -> None:
    before = asyncio.all_tasks()
    async with LoopLag(Oversleeper()):
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


def test_nothing_sent_is_no_delay() -> None:
    assert worst_send_delay([]) == 0.0
