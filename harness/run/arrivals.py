"""When requests are due. An arrival process hands out requests, each with the time at which it should be sent.

A *closed loop* keeps a number of requests in flight: when a request ends, the next one is due. An *open loop* (for
instance Poisson arrivals at a rate) does not wait for the servers. It would fit the same protocol: ``ended`` does
nothing, and due times are absolute, since the delays of relative sleeps would add up.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from harness.clock import Clock
from harness.scenario import Request


class Arrivals(Protocol):
    """An arrival process, used for one phase."""

    def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Yield each request in order when it is due, with the time on the clock at which it was due."""
        ...

    def ended(self) -> None:
        """Note that one of the requests has ended."""
        ...


class ClosedLoop:
    """Keeps exactly ``concurrency`` requests in flight for as long as there are requests left."""

    def __init__(self, concurrency: int, clock: Clock) -> None:
        self._clock = clock
        self._free: asyncio.Queue[float] = asyncio.Queue()
        """One entry per free slot: the time at which the slot became free."""
        for _ in range(concurrency):
            self.ended()

    async def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Yield each request as soon as a slot is free; the request was due when the slot became free."""
        for request in requests:
            free_since = await self._free.get()
            yield request, free_since

    def ended(self) -> None:
        """Free a slot now."""
        self._free.put_nowait(self._clock.now())
