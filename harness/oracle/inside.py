"""How many different names have a use that lies in a window as a whole, and whether a single name has one.

A use lasts from its start to its end. Of one name's uses, those that contain another one do not matter: the other lies
in every window in which they do. Those that are left end in the order in which they start. So those that lie in a
window are neighbours, and each pair of neighbours from the start of one to the end of the next lies in it, too: the
number of different names is the number of uses in the window less the number of such pairs.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import inf, nextafter

from harness.oracle.blocks import Block
from harness.oracle.points import Points
from harness.oracle.users import Users
from harness.oracle.window import Lately

_FEW = 4
"""Fewer uses are looked at one by one."""


class Inside:
    """The uses of a store in the order of their starts."""

    def __init__(self, starts: Sequence[float], ends: Sequence[float], users: Users) -> None:
        self._starts, self._ends, self._users = starts, ends, users
        points = Counter[tuple[float, float]]()
        for index, names in enumerate(users.sole(len(starts))):
            if names:
                points[starts[index], ends[index]] += names
        for name in users.of_several():
            innermost = self._innermost(users.of(name))
            for index in innermost:
                points[starts[index], ends[index]] += 1
            for index, following in pairwise(innermost):
                points[starts[index], ends[following]] -= 1
        self._points = Points(points)
        self._counts = Lately[int]()
        self._earliest: dict[Block, array[float]] = {}
        """For each place among a name's uses: the earliest end from there on."""

    def _innermost(self, uses: Sequence[int]) -> list[int]:
        """The uses of one name that contain no other one, in order."""
        found: list[int] = []
        for index in reversed(uses):
            if not found or self._ends[index] < self._ends[found[-1]]:
                found.append(index)
        return found[::-1]

    def count(self, start: float, end: float) -> int:
        """How many different names have a use that began after ``start`` and ended before ``end``."""
        return self._counts.get((start, end), self._count)

    def _count(self, start: float, end: float) -> int:
        return self._points.total(nextafter(start, inf), nextafter(end, -inf))

    def has(self, name: Block, start: float, end: float) -> bool:
        """Whether the name has such a use."""
        uses = self._users.of(name)
        place = self._users.up_to(name, bisect_right(self._starts, start))
        if len(uses) - place < _FEW:
            return any(self._ends[index] < end for index in uses[place:])
        if name not in self._earliest:
            earliest = [*accumulate((self._ends[index] for index in reversed(uses)), min)]
            self._earliest[name] = array("d", earliest[::-1])
        return self._earliest[name][place] < end
