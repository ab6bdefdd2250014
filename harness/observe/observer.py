"""Reads all servers of a deployment around each phase, once they have settled, and records the readings."""

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


class SettledObserver:
    """Waits until the deployment has settled and records its readings; ``read_all`` reads every server once."""

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
        """For each server, the share of its block pool that was held when it had settled."""
        self._settled: Readings | None = None
        """The last readings, if the deployment had settled and no request was sent since."""

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Record one reading per server once all have settled; after the deadline, mark the readings as not settled.

        If no request was sent since the last settled reading, the same reading is recorded again. So a phase starts
        where the previous phase ended, and changes between the two phases count as part of the second.
        """
        if self._settled is not None:
            for reading in self._settled.values():
                self._record(replace(reading, scenario=scenario, phase=phase, label=label))
            return
        result = await settle(
            lambda: self._read_all(Occasion(scenario, phase, label)),
            self._clock,
            baseline=self._baseline,
            deadline=self._deadline,
        )
        self._remember(result)
        self._settled = result.readings if result.settled else None
        for name, reading in result.readings.items():
            self._record(_marked(reading, result, name))

    def disturbed(self) -> None:
        """Note that requests are about to be sent."""
        self._settled = None

    def _remember(self, result: Settled) -> None:
        # Blocks that were still held at the deadline will not be released. The history records them once, and later
        # phases do not wait for them.
        if (self._baseline is None and result.settled) or result.holding:
            self._baseline = {name: one.kv_usage or 0.0 for name, one in result.counters.items()}


class DeploymentObserver(SettledObserver):
    """A `SettledObserver` that reads the servers over HTTP."""

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
    # If one server has not settled, no reading is certain: its requests may still reach the other servers.
    because = result.because.get(name) or "; ".join(f"{other}: {why}" for other, why in result.because.items())
    return replace(reading, settled=False, unsettled_because=because)
