"""When requests are due. An arrival process hands out requests, each with the time at which it should be sent.

A *closed loop* keeps a number of requests in flight: the next one is due the moment one ends. An *open loop* (Poisson
arrivals at a rate, say) is due by the clock and does not wait for the servers; it fits the same protocol, with
``ended`` doing nothing and times set absolutely from the start, since relative sleeps add up their delays.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from harness.clock import Clock
from harness.scenario import Request


class Arrivals(Protocol):
    """An arrival process; serves one phase."""

    def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Yield each request, in order, when it is due, with the clock's time at which it was."""
        ...

    def ended(self) -> None:
        """One of them has ended."""
        ...


class ClosedLoop:
    """At most ``concurrency`` in flight, and that many while requests last."""

    def __init__(self, concurrency: int, clock: Clock) -> None:
        self._clock = clock
        self._free: asyncio.Queue[float] = asyncio.Queue()
        """One entry per free slot: since when."""
        for _ in range(concurrency):
            self.ended()

    async def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Each request as soon as a slot is free; it was due when the slot became so."""
        for request in requests:
            free_since = await self._free.get()
            yield request, free_since

    def ended(self) -> None:
        """Free a slot, now."""
        self._free.put_nowait(self._clock.now())
