"""The most places without a name that were held at one time of a window.

A use holds its places from its start until ``delay`` after its release. Counted are uses that touch the window: those
that began by its end and were not released before it began. The most is held when some use begins.

Rule 1. Of uses that began up to ``delay`` after the window's start, all that count are still held then: so the most is
held when the last of them has begun.

Rule 2. Later, every use that is still held counts. So what is held at such a time does not depend on the window, and
the most of a range of times is found in a table.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int32]]


class Held:
    """The uses of a store in the order of their starts. ``places``: how many each of them holds."""

    def __init__(self, starts: Sequence[float], released: Sequence[float], places: Sequence[int], delay: float) -> None:
        self._starts, self._released, self._places, self._delay = starts, released, places, delay
        by_release = sorted(range(len(starts)), key=lambda index: released[index])
        self._releases = array("d", [released[index] for index in by_release])
        self._begun = array("q", accumulate(places, initial=0))
        self._ended = array("q", accumulate((places[index] for index in by_release), initial=0))

    @cached_property
    def _most(self) -> list[Numbers]:
        """What is held when each use begins, as :func:`_most_of_ranges` has it."""
        freed = [bisect_left(self._releases, start, key=lambda one: one + self._delay) for start in self._starts]
        begun = [self._begun[bisect_right(self._starts, start)] for start in self._starts]
        return _most_of_ranges([one - self._ended[number] for one, number in zip(begun, freed, strict=True)])

    def total(self, start: float, end: float, without: Collection[int] = ()) -> int:
        """The places of all uses that touch the window, apart from those in ``without``."""
        before = self._ended[bisect_left(self._releases, start)]
        left_out = sum(self._places[i] for i in without if self._starts[i] <= end and self._released[i] >= start)
        return self._begun[bisect_right(self._starts, end)] - before - left_out

    def most(self, start: float, end: float, without: Collection[int] = ()) -> int:
        """The most places that uses which touch the window held at one time, apart from those in ``without``."""
        soon = min(end, start + self._delay)
        first, last = bisect_right(self._starts, soon), bisect_right(self._starts, end)
        later = (self._most_between(*part, without) for part in self._parts(first, last, without))
        return max(self.total(start, soon, without), *later, 0)

    def _parts(self, first: int, last: int, without: Collection[int]) -> Iterator[tuple[int, int]]:
        """The range from ``first`` to ``last``, divided where a use that is left out begins or ceases to hold."""
        edges = {first, last}
        for index in without:
            held = self._starts[index], self._released[index] + self._delay
            edges |= {bisect_left(self._starts, held[0]), bisect_right(self._starts, held[1])}
        return pairwise(sorted(edge for edge in edges if first <= edge <= last))

    def _most_between(self, first: int, last: int, without: Collection[int]) -> int:
        """The most that is held when any use of the range begins, less what those in ``without`` hold then."""
        level = (last - first).bit_length() - 1
        most = max(self._most[level][first], self._most[level][last - (1 << level)])
        at = self._starts[first]
        own = (self._places[i] for i in without if self._starts[i] <= at <= self._released[i] + self._delay)
        return int(most) - sum(own)


def _most_of_ranges(values: Sequence[int]) -> list[Numbers]:
    """For each power of two, the largest of so many values from each place on."""
    levels = [np.array(values, np.int32)]
    while (size := 1 << (len(levels) - 1)) * 2 <= len(values):
        last = levels[-1]
        levels.append(np.maximum(last[:-size], last[size:]))
    return levels
