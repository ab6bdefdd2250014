"""When requests are due. An arrival process hands out requests, each with the time at which it should be sent.

A *closed loop* keeps a number of requests in flight: when a request ends, the next one is due. An *open loop* sends
requests at times that were fixed beforehand, whatever the servers do. Its times are absolute: if one request is sent
late, the next one is not sent later for it. Delays between requests would add up all lateness, and the rate would fall.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol

from harness.clock import Clock
from harness.errors import HarnessError
from harness.scenario import Phase, Request


class Arrivals(Protocol):
    """An arrival process, used for one phase."""

    def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Yield each request in order when it is to be sent, with the time on the clock at which it was due."""
        ...

    def allowed_at(self, request: Request) -> float | None:
        """The time at which the limit of requests in flight allowed the sending; None: when the request was due."""
        ...

    def ended(self) -> None:
        """Note that one of the requests has ended, or the last turn of a session."""
        ...


def arriving(phase: Phase) -> list[Request]:
    """The requests of the phase that arrive by themselves: all but the later turns of sessions.

    Raises HarnessError if the phase has a schedule for another number of requests.
    """
    found = [request for request in phase.requests if request.request_id not in phase.think_times]
    if phase.due and len(phase.due) != len(found):
        raise HarnessError(f"The phase {phase.name} has {len(phase.due)} times for {len(found)} requests.")
    return found


def arrivals_of(phase: Phase, clock: Clock, began: float | None = None) -> Arrivals:
    """The arrival process of a phase whose schedule counts from ``began``; None: from the beginning of its sending."""
    if phase.due:
        return OpenLoop(phase.due, phase.concurrency, clock, began)
    return ClosedLoop(phase.concurrency, clock)


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

    def allowed_at(self, request: Request) -> float | None:  # noqa: ARG002 - the protocol's parameter
        """None: a request is due when a slot is free."""
        return None

    def ended(self) -> None:
        """Free a slot now."""
        self._free.put_nowait(self._clock.now())


class OpenLoop:
    """Sends each request at its time, unless ``concurrency`` requests are in flight: then when one of them has ended.

    ``times``: seconds from ``began``, in rising order, one for each request. ``began``: a time on the clock; None: the
    beginning of :meth:`due`.
    """

    def __init__(self, times: Sequence[float], concurrency: int, clock: Clock, began: float | None = None) -> None:
        self._times = times
        self._clock = clock
        self._began = began
        self._slots = ClosedLoop(concurrency, clock)
        self._allowed: dict[str, float] = {}
        """When a slot became free, for requests that had to wait for one."""

    async def due(self, requests: Iterable[Request]) -> AsyncGenerator[tuple[Request, float], None]:
        """Yield each request at its time, or later if there is no free slot. It was due at its time in any case."""
        began = self._clock.now() if self._began is None else self._began
        slots = self._slots.due(requests)
        for after in self._times:
            at = began + after
            await self._until(at)
            try:
                request, free_since = await anext(slots)
            except StopAsyncIteration:
                return
            if free_since > at:
                self._allowed[request.request_id] = free_since
            yield request, at

    def allowed_at(self, request: Request) -> float | None:
        """When a slot became free; None if one was free when the request was due."""
        return self._allowed.pop(request.request_id, None)

    def ended(self) -> None:
        """Free a slot now."""
        self._slots.ended()

    async def _until(self, at: float) -> None:
        """Wait until a time. Gives other tasks a turn in any case, since requests that are late have to be sent."""
        await self._clock.sleep(max(0.0, at - self._clock.now()))
        # Timers of an event loop may wake up to half a millisecond early.
        while (early := at - self._clock.now()) > 0:
            await self._clock.sleep(early)
