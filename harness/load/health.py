"""Whether the client itself kept up: the delays of a late client would be measured as the servers' latency.

It is measured while the load is sent, and at no other time.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from harness.cancelled import cancelled
from harness.clock import Clock
from harness.history import ClientHealth, Sent
from harness.open_files import file_limit, open_files

_INTERVAL_S = 0.01
"""A hundred wake-ups a second cost nothing, and no longer delay of the event loop falls between two of them."""
_FILES_EVERY = 50
"""Wake-ups between two counts of open files: counting 50,000 of them takes 10 ms or so."""


class LoopLag:
    """Measures the event loop's delays while the context is entered: how late a sleeping task wakes up.

    The context may be entered again, once for each part of a run that is to be measured. What the harness does between
    these parts, such as planning or judging, is no delay of the load.
    """

    def __init__(
        self,
        clock: Clock,
        interval: float = _INTERVAL_S,
        cpu_seconds: Callable[[], float] = time.process_time,
        open_files: Callable[[], int | None] = open_files,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._cpu_seconds = cpu_seconds
        self._open_files = open_files
        self._began = 0.0
        self._cpu_before = 0.0
        self._elapsed = 0.0
        self._cpu = 0.0
        self._total = 0.0
        self._wakes = 0
        self._task: asyncio.Task[None] | None = None
        self._most_files: int | None = None
        self.worst = 0.0
        """The longest delay so far, in seconds."""

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock.now() + self._interval
            await self._clock.sleep(self._interval)
            late = self._clock.now() - due
            self.worst = max(self.worst, late)
            self._total += late
            self._wakes += 1
            if self._wakes % _FILES_EVERY == 1:
                self._count_files()

    def _count_files(self) -> None:
        if (count := self._open_files()) is not None:
            self._most_files = max(count, self._most_files or 0)

    def health(self, sent: Iterable[Sent]) -> ClientHealth:
        """The health of the client that sent these requests, for the history."""
        self._add_up()
        return ClientHealth(
            at=self._clock.now(),
            worst_loop_lag=self.worst,
            worst_send_delay=worst_send_delay(sent),
            mean_loop_lag=self._total / self._wakes if self._wakes else 0.0,
            cpu_share=self._cpu / self._elapsed if self._elapsed > 0 else 0.0,
            open_files=self._most_files,
            file_limit=file_limit(),
        )

    def _add_up(self) -> None:
        """Add the time since the context was entered, or since the last call, to the time measured."""
        if self._task is None:
            return
        now, cpu = self._clock.now(), self._cpu_seconds()
        self._elapsed += now - self._began
        self._cpu += cpu - self._cpu_before
        self._began, self._cpu_before = now, cpu

    async def __aenter__(self) -> Self:
        self._began, self._cpu_before = self._clock.now(), self._cpu_seconds()
        self._task = asyncio.create_task(self.watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._count_files()
            self._add_up()
            task, self._task = self._task, None
            await cancelled(task)


def worst_send_delay(sent: Iterable[Sent]) -> float:
    """The longest time between when a request could have been sent and its sending, in seconds; 0 if none was sent.

    In a closed loop a request is due when a slot becomes free. In an open loop with a limit of requests in flight, it
    may have to wait for a slot after it was due. Waiting for a slot is not included.
    """
    return max((entry.at - _possible_at(entry) for entry in sent), default=0.0)


def _possible_at(sent: Sent) -> float:
    return sent.intended_at if sent.allowed_at is None else sent.allowed_at
