"""Reads all servers of a deployment around each phase, once they rest, and puts the readings into the history."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.history import Entry, Scraped, ScrapeFailed
from harness.observe.scrape import Occasion, scrape
from harness.observe.settle import DEADLINE, Readings, Settled, settle

Record = Callable[[Entry], None]


class RestObserver:
    """Waits for rest and records; remembers how much of each block pool was held at rest.

    ``read_all``: one reading of every server, by whatever way there is to them.
    """

    def __init__(
        self,
        read_all: Callable[[Occasion], Awaitable[Readings]],
        clock: Clock,
        record: Record,
        *,
        deadline: float = DEADLINE,
    ) -> None:
        self._read_all = read_all
        self._clock = clock
        self._record = record
        self._deadline = deadline
        self._baseline: dict[str, float] | None = None
        self._at_rest: Readings | None = None

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Record one reading per server, taken at rest or marked as not; takes up to the deadline.

        Of a deployment that was seen at rest and asked nothing since, the last reading is recorded again: a phase
        begins where the one before it ended, and whatever moved between them counts, too.
        """
        if self._at_rest is not None:
            for reading in self._at_rest.values():
                self._record(replace(reading, scenario=scenario, phase=phase, label=label))
            return
        result = await settle(
            lambda: self._read_all(Occasion(scenario, phase, label)),
            self._clock,
            baseline=self._baseline,
            deadline=self._deadline,
        )
        self._remember(result)
        self._at_rest = result.readings if result.settled else None
        for name, reading in result.readings.items():
            self._record(_marked(reading, result, name))

    def disturbed(self) -> None:
        """Requests are about to be sent."""
        self._at_rest = None

    def _remember(self, result: Settled) -> None:
        # Blocks that were waited for to the deadline in vain do not come back: that stands in the history, once, and
        # no later phase waits for them again.
        if (self._baseline is None and result.settled) or result.holding:
            self._baseline = {name: one.kv_usage or 0.0 for name, one in result.counters.items()}


class DeploymentObserver(RestObserver):
    """The same over HTTP."""

    def __init__(
        self,
        servers: Sequence[Server],
        session: aiohttp.ClientSession,
        clock: Clock,
        record: Record,
        *,
        deadline: float = DEADLINE,
    ) -> None:
        async def read_all(occasion: Occasion) -> Readings:
            readings = await asyncio.gather(*(scrape(session, server, clock, occasion) for server in servers))
            return {reading.server: reading for reading in readings}

        super().__init__(read_all, clock, record, deadline=deadline)


@asynccontextmanager
async def observing(
    servers: Sequence[Server], headers: Mapping[str, str], clock: Clock, record: Record, *, deadline: float = DEADLINE
) -> AsyncIterator[DeploymentObserver]:
    """An observer with connections of its own, which are closed at the end; ``headers`` are sent with every reading."""
    async with aiohttp.ClientSession(headers=headers) as session:
        yield DeploymentObserver(servers, session, clock, record, deadline=deadline)


def _marked(reading: Scraped | ScrapeFailed, result: Settled, name: str) -> Scraped | ScrapeFailed:
    if isinstance(reading, ScrapeFailed) or result.settled:
        return reading
    # One restless server makes every reading uncertain: its request may still reach the others.
    because = result.because.get(name) or "; ".join(f"{who}: {why}" for who, why in result.because.items())
    return replace(reading, settled=False, unsettled_because=because)
