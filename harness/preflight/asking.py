"""Servers' counters before a run, read until something is seen or a while has passed."""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Scraped
from harness.observe.counters import Counters, Delta, delta, read_counters
from harness.observe.scrape import Occasion, scrape

_OCCASION = Occasion("preflight", "preflight", "preflight")
_PAUSE = 0.1
"""Seconds between two readings."""


async def counters_of(session: aiohttp.ClientSession, servers: Sequence[Server], clock: Clock) -> list[Counters | None]:
    """A reading of each, in order; None where it failed."""
    readings = await asyncio.gather(*(scrape(session, server, clock, _OCCASION) for server in servers))
    return [read_counters(one) if isinstance(one, Scraped) else None for one in readings]


def grown(before: Sequence[Counters | None], after: Sequence[Counters | None]) -> list[Delta | None]:
    """What each server counted in between; None where it could not be read."""
    return [
        None if first is None or last is None else delta(first, last) for first, last in zip(before, after, strict=True)
    ]


class Watch:
    """Servers' counters since a moment."""

    def __init__(self, session: aiohttp.ClientSession, servers: Sequence[Server], clock: Clock) -> None:
        self._session, self._servers, self._clock = session, servers, clock
        self.first: list[Counters | None] = []
        self.last: list[Counters | None] = []

    async def begin(self) -> None:
        """From now on."""
        self.first = self.last = await counters_of(self._session, self._servers, self._clock)

    async def until(self, seen: Callable[[list[Delta | None]], bool], seconds: float) -> list[Delta | None]:
        """What was counted since the beginning, as soon as ``seen`` says so of it, or after ``seconds``."""
        started = self._clock.now()
        while True:
            self.last = await counters_of(self._session, self._servers, self._clock)
            since = grown(self.first, self.last)
            if seen(since) or self._clock.now() - started >= seconds:
                return since
            await self._clock.sleep(_PAUSE)
