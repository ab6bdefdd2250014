"""How many different names were used at any time of a window, and whether a single name was.

A use lasts from its start to its release, both included. The uses of one name that follow each other without a gap
count as one; then the uses that touch a window are neighbours, and the gaps between them lie in the window. So the
number of different names is the number of uses less the number of gaps in the window. Uses are counted by two
searches: those that began by its end, less those that were released before it began.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate

from harness.oracle.blocks import Block
from harness.oracle.points import Points
from harness.oracle.users import Users
from harness.oracle.window import Lately

_KEPT = 3
"""Uses that are remembered as released last: a question leaves out two at most."""


class Overlaps:
    """The uses of a store in the order of their starts."""

    def __init__(self, starts: Sequence[float], released: Sequence[float], users: Users) -> None:
        self._starts, self._released, self._users = starts, released, users
        begun, ends, gaps = users.sole(len(starts)), Counter[float](), Counter[tuple[float, float]]()
        for index, names in enumerate(begun):
            ends[released[index]] += names
        for name in users.of_several():
            self._join(users.of(name), begun, ends, gaps)
        self._begun = array("q", accumulate(begun, initial=0))
        self._ends = array("d", sorted(ends))
        self._ended = array("q", accumulate((ends[end] for end in self._ends), initial=0))
        self._gaps = Points(gaps)
        self._counts = Lately[int]()
        self._latest: dict[Block, array[int]] = {}
        """For each place among a name's uses from the third on: the uses up to there that were released last."""

    def _join(
        self, uses: Sequence[int], begun: list[int], ends: Counter[float], gaps: Counter[tuple[float, float]]
    ) -> None:
        """Add the uses of one name, joined where there is no gap."""
        end = self._released[uses[0]]
        begun[uses[0]] += 1
        for index in uses[1:]:
            if self._starts[index] > end:
                gaps[end, self._starts[index]] += 1
                begun[index] += 1
                ends[end] += 1
            end = max(end, self._released[index])
        ends[end] += 1

    def count(self, start: float, end: float) -> int:
        """How many different names were used from ``start`` to ``end``."""
        return self._counts.get((start, end), self._count)

    def _count(self, start: float, end: float) -> int:
        begun = self._begun[bisect_right(self._starts, end)]
        return begun - self._ended[bisect_left(self._ends, start)] - self._gaps.total(start, end)

    def used(self, name: Block, start: float, end: float, without: Collection[int]) -> bool:
        """Whether any use of the name touches the window, apart from those in ``without`` (two at most)."""
        # This is asked more often than anything else, and mostly the last use tells.
        users = self._users
        first, after = users.starts[name], users.starts[name + 1]
        last = users.uses[after - 1]
        if self._starts[last] <= end and last not in without and self._released[last] >= start:
            return True
        if after - first == 1:
            return False
        latest = self._latest_of(name, bisect_right(self._starts, end))
        return any(self._released[index] >= start and index not in without for index in latest)

    def last_release(self, name: Block, end: float, without: int) -> float | None:
        """The latest release of the name's uses that began by ``end``, apart from one; None if there are none."""
        users = self._users
        first, after = users.starts[name], users.starts[name + 1]
        last = users.uses[after - 1]
        # Most names have one use.
        if after - first == 1:
            return None if last == without or self._starts[last] > end else self._released[last]
        latest = self._latest_of(name, bisect_right(self._starts, end))
        return next((self._released[index] for index in latest if index != without), None)

    def _latest_of(self, name: Block, before: int) -> Sequence[int]:
        """Of the name's uses before the use with index ``before``: those released last, the last one first."""
        place = self._users.up_to(name, before)
        if place < 2:
            return self._users.of(name)[:place]
        if place < _KEPT:
            return self._by_release(self._users.of(name)[:place])
        if name not in self._latest:
            self._latest[name] = array("i", self._latest_at_each_place(name))
        return self._latest[name][(place - _KEPT) * _KEPT : (place - _KEPT + 1) * _KEPT]

    def _latest_at_each_place(self, name: Block) -> Iterator[int]:
        latest: Sequence[int] = ()
        for place, index in enumerate(self._users.of(name), 1):
            latest = self._by_release((*latest, index))[:_KEPT]
            if place >= _KEPT:
                yield from latest

    def _by_release(self, uses: Iterable[int]) -> Sequence[int]:
        return sorted(uses, key=self._released.__getitem__, reverse=True)
