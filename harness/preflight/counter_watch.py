"""Reads servers' counters before a run, repeatedly until a condition holds or a time limit expires."""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Scraped
from harness.observe.counters import Counters, read_counters
from harness.observe.growth import Delta, delta
from harness.observe.scrape import Occasion, scrape

_OCCASION = Occasion("preflight", "preflight", "preflight")
_PAUSE = 0.1
"""Seconds between two readings."""


class CounterWatch:
    """The growth of servers' counters since a starting point."""

    def __init__(self, session: aiohttp.ClientSession, servers: Sequence[Server], clock: Clock) -> None:
        self._session, self._servers, self._clock = session, servers, clock
        self._first: list[Counters | None] = []
        self.last: list[Counters | None] = []
        """The latest reading of each server, in order; None if it failed."""

    async def begin(self) -> None:
        """Read the counters as the starting point."""
        self._first = self.last = await self._read()

    async def until(self, condition: Callable[[list[Delta | None]], bool], seconds: float) -> list[Delta | None]:
        """Each server's growth since ``begin`` (None: unreadable), once the condition holds or ``seconds`` are over."""
        started = self._clock.now()
        while True:
            self.last = await self._read()
            growth = [
                None if first is None or last is None else delta(first, last)
                for first, last in zip(self._first, self.last, strict=True)
            ]
            if condition(growth) or self._clock.now() - started >= seconds:
                return growth
            await self._clock.sleep(_PAUSE)

    async def _read(self) -> list[Counters | None]:
        readings = await asyncio.gather(
            *(scrape(self._session, server, self._clock, _OCCASION) for server in self._servers)
        )
        return [read_counters(reading) if isinstance(reading, Scraped) else None for reading in readings]
