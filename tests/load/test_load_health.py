"""Whether the client kept up, measured with a simulated clock."""

import asyncio
from collections import deque

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
    assert health == ClientHealth(
        at=1.875, worst_loop_lag=0.25, worst_send_delay=0.5, mean_loop_lag=0.125, cpu_share=0.4
    )


async def test_measuring_ends_with_the_context() -> None:
    before = asyncio.all_tasks()
    async with LoopLag(Oversleeper()):
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


def test_nothing_sent_is_no_delay() -> None:
    assert worst_send_delay([]) == 0.0
