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

    def add(self, worker: str, reports: Iterable[tuple[float, T]], until: float) -> None:
        """Add reports with their times; ``until``: the time up to which the worker has reported everything."""
        for at, report in reports:
            heapq.heappush(self._waiting, (at, self._count, report))
            self._count += 1
        self._known_until[worker] = until

    def close(self, worker: str) -> None:
        """Wait for this worker no more."""
        self._known_until[worker] = math.inf

    def ready(self) -> Iterator[T]:
        """Reports that no worker can report anything before, in order. Each is handed on once."""
        until = min(self._known_until.values(), default=math.inf)
        while self._waiting and self._waiting[0][0] <= until:
            yield heapq.heappop(self._waiting)[2]
