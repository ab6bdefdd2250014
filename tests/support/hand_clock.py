"""A clock that a test sets: who sleeps wakes up when the test has moved the clock so far."""

import asyncio

from turns import turn


class HandClock:
    """Counts seconds from 0."""

    def __init__(self) -> None:
        self.time = 0.0
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        wakes = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.time + seconds, wakes))
        if seconds <= 0:
            wakes.set_result(None)
        await wakes

    async def advance(self, to: float) -> None:
        """Move the clock, from one sleeper's time to the next; after each move all other tasks do what they can."""
        await _settle()
        while due := [one for one in self._sleeping if one[0] <= to]:
            at, wakes = min(due, key=lambda one: one[0])
            self._sleeping.remove((at, wakes))
            self.time = max(self.time, at)
            if not wakes.done():
                wakes.set_result(None)
            await _settle()
        self.time = to
        await _settle()


async def _settle() -> None:
    for _ in range(20):
        await turn()
