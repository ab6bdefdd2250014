"""Puts what several workers report into the order of its times. Pure.

Each worker says, with what it reports, up to which time it has reported everything. Up to the earliest of these times,
all workers' reports are known and can be handed on in order. A report that comes with an earlier time than what was
handed on already (an operation's end is stamped a moment before it is reported) is handed on at once.
"""

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class InOrder(Generic[T]):
    """Reports of several workers, merged by time. Reports with equal times keep the order in which they came."""

    def __init__(self, workers: Iterable[str]) -> None:
        self._known_until = dict.fromkeys(workers, -math.inf)
        self._waiting: list[tuple[float, int, T]] = []
        self._count = 0
        self._last = dict.fromkeys(self._known_until, -math.inf)
        """The time of each worker's last report."""

    def add(self, worker: str, reports: Iterable[tuple[float, T]], until: float) -> None:
        """Add reports with their times; ``until``: the time up to which the worker has reported everything."""
        for at, report in reports:
            heapq.heappush(self._waiting, (at, self._count, report))
            self._count += 1
            self._last[worker] = max(self._last[worker], at)
        self._known_until[worker] = until

    def close(self, worker: str) -> None:
        """Wait for this worker no more."""
        self._known_until[worker] = math.inf

    def lose(self, worker: str) -> Iterator[T]:
        """Hand on everything up to the worker's last report, and wait for it no more.

        What others still report of that time comes later. How the lost worker's operations ended must be known at once:
        those without an end are given one.
        """
        self.close(worker)
        yield from self._until(self._last[worker])

    def ready(self) -> Iterator[T]:
        """Reports that no worker can report anything before, in order. Each is handed on once."""
        yield from self._until(min(self._known_until.values(), default=math.inf))

    def _until(self, until: float) -> Iterator[T]:
        while self._waiting and self._waiting[0][0] <= until:
            yield heapq.heappop(self._waiting)[2]
