"""Virtual time for simulated servers: engines step, and if no engine has work, the clock jumps.

Rule 1. In one turn of the event loop every client has a turn and every engine makes a step; it lasts ``STEP`` seconds.
Rule 2. If no engine has work, the clock jumps to the next alarm after some turns. An earlier jump would end leases that
        do not end in real time, since a client needs some turns of the event loop to send its next request.
Rule 3. Nothing depends on real time, so that a repeated run takes the same steps.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from types import TracebackType
from typing import Self

from harness.cancelled import cancelled
from harness.sim import SimPair

STEP = 0.01
"""Virtual seconds of a step, like a decode step of a mid-sized model."""
_QUIET_TURNS = 12
"""Turns without work before the clock jumps (rule 2): the longest chain of tasks between an answer and the next
request."""


@dataclass(slots=True)
class Alarm:
    """A call that is due at a time and can be cancelled."""

    call: Callable[[], None] | None

    def cancel(self) -> None:
        """Drop the call; the clock does not jump to its time."""
        self.call = None


@dataclass(slots=True)
class World:
    """A clock (:class:`harness.clock.Clock`) that drives the servers of ``pair`` inside ``async with``."""

    pair: SimPair | None = None
    time: float = 0.0
    _due: list[tuple[float, int, Alarm]] = field(default_factory=list)
    _serial: "count[int]" = field(default_factory=count)
    _task: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time; 0 gives other tasks a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        self.at(self.time + seconds, woken.set)
        await woken.wait()

    def at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Call ``call`` at a virtual time."""
        alarm = Alarm(call)
        heappush(self._due, (when, next(self._serial), alarm))
        return alarm

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancelled(self._task)

    async def _go_on(self) -> None:
        quiet = 0
        while True:
            await asyncio.sleep(0)
            if self._step():
                quiet = 0
                self.time += STEP
            elif (quiet := quiet + 1) >= _QUIET_TURNS:
                quiet = 0
                self._jump()
            self._wake()

    def _step(self) -> bool:
        """One step of every engine that has work; False if none has."""
        busy = [server for server in self.pair.servers if server.engine.has_work] if self.pair else []
        for server in busy:
            server.step()
        return bool(busy)

    def _jump(self) -> None:
        while self._due and self._due[0][2].call is None:
            heappop(self._due)
        if self._due:
            self.time = max(self.time, self._due[0][0])

    def _wake(self) -> None:
        while self._due and self._due[0][0] <= self.time:
            alarm = heappop(self._due)[2]
            if alarm.call is not None:
                alarm.call()
