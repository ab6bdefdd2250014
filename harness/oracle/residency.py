"""The names that a least-recently-used store certainly holds, and possibly holds, if its users overlap in time.

The block pool with its free queue and the offload tier are both such stores. A store has ``capacity`` places, one for
each name (a second copy of a name takes a second place). A name that is used becomes younger than all names used
before; when a place is needed, the oldest name that no user holds is evicted. Of each user, only the time interval of
all its actions is known. For every order of events within the intervals:

    certainly held  ⊆  held  ⊆  possibly held

Rule 1 (order). A use that ended before another started came before it. Uses with overlapping intervals have no order.

Rule 2 (no pressure). As long as all names ever used, with all copies and unnamed blocks, fit into the store, nothing is
evicted. Then a name is certainly held once some certain use of it has ended, and possibly held once any use of it may
have begun.

Rule 3 (certainly held). A name is evicted only when all other places hold something younger or held by a user. All of
that was used since the name's own last use began. So the name is still there if the different names used since then,
with the unnamed blocks that can be held at one time, leave one place.

Rule 4 (possibly held). Conversely, a name has been evicted if so many different names were certainly used after its
last possible use that no place is left, because younger names are evicted later.

Rule 5 (chains). A user releases the last block of a chain first. So the blocks before a name in its chain are younger
than the name and count among the others in rules 3 and 4; the blocks behind it are older and do not count.

Names in the store before the first use are older than all uses. They count as empty places, except names for which a
user may look (``possibly_initial``).
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.oracle.blocks import Block, Chain
from harness.oracle.held import Held
from harness.oracle.inside import Inside
from harness.oracle.overlaps import Overlaps
from harness.oracle.users import Users
from harness.oracle.window import Window

RETURN_DELAY = 0.5
"""Seconds after a request's end until its blocks are certainly free: a step in flight may still write to them."""
_WINDOWS = 64
"""Windows whose answers are kept: the blocks of one chain need the same window, one after the other."""


@dataclass(frozen=True, slots=True)
class Use:
    """One user's use of the store."""

    start: float
    """The user did nothing before this time."""
    end: float
    """All names in ``certain`` were in the store by then; infinite if not known."""
    released: float
    """The user held nothing after this time."""
    certain: Chain
    """Names that were certainly used, first block first."""
    possible: Chain
    """Names that may have been used, including ``certain``."""
    spare: tuple[int, int] = (0, 0)
    """Lower and upper bound of the places without a name that the user held."""
    copies: int = 0
    """Upper bound on the places taken by second copies of names."""


@dataclass(frozen=True, eq=False)
class Residency:
    """A store and its users, in the order in which they started."""

    uses: Sequence[Use]
    capacity: int | None
    """Places; None if not known."""
    possibly_initial: Callable[[Block], bool]
    """Whether a name may have been in the store before the first use."""

    @cached_property
    def users(self) -> Users:
        """Indices of the uses that may have used a name, in order."""
        return Users([use.possible for use in self.uses])

    @cached_property
    def may_evict(self) -> bool:
        """Whether anything may ever have been evicted (rule 2)."""
        if self.capacity is None:
            return True
        places = self.users.used + sum(use.copies for use in self.uses)
        return places + self._unnamed.most(float("-inf"), float("inf")) > self.capacity

    def first_end(self, name: Block) -> float:
        """When the first certain use of a name had ended; infinite if no use is certain."""
        return self._first_ends[name] if name < len(self._first_ends) else float("inf")

    def certainly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is certainly held when ``user`` looks for it (rules 1 to 3)."""
        name, looking = chain[depth], self.uses[user]
        if self.first_end(name) >= looking.start:
            return False
        if not self.may_evict:
            return True
        if self.capacity is None:
            return False
        last = self._last_certain(name, looking.start)
        return self.fits(self._starts[last], looking.end, (last, user), chain, depth)

    def _last_certain(self, name: Block, before: float) -> int:
        """The certain use of the name that began last, of those that ended before a time; there is one."""
        uses = self._certain_users.of(name)
        place = self._certain_users.up_to(name, bisect_left(self._starts, before)) - 1
        while self._ends[uses[place]] >= before:
            place -= 1
        best = place
        while place and self._starts[uses[place - 1]] == self._starts[uses[best]]:
            place -= 1
            best = place if self._ends[uses[place]] < before else best
        return uses[best]

    def possibly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is possibly held when ``user`` looks for it (rules 1, 2 and 4)."""
        name, looking = chain[depth], self.uses[user]
        last = self._named.last_release(name, looking.end, user)
        if last is None:
            if not self.possibly_initial(name):
                return False
            last = float("-inf")
        if self.capacity is None or not self.may_evict or last >= looking.start:
            return True
        return self._may_remain(last, looking.start, chain, depth)

    def fits(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, depth: int) -> bool:
        """Whether :meth:`max_places` leaves one place of a capacity that is known.

        Bounds that are found quickly are nearly always enough: most windows are far shorter or longer than it takes to
        fill the store.
        """
        capacity, names = self.capacity or 0, self._count_between(start, end)
        if names - 1 - sum(len(self.uses[index].possible) for index in excluded) >= capacity:
            return False
        if names + depth + self._copies.total(start, end) + self._unnamed.total(start, end) < capacity:
            return True
        return self.max_places(start, end, excluded, chain, depth) < capacity

    def _may_remain(self, start: float, end: float, chain: Chain, depth: int) -> bool:
        """Whether :meth:`_min_places` leaves one place of a capacity that is known; mostly by quick bounds, too."""
        capacity = self.capacity or 0
        if self._count_between(start, end) + depth + self._most_spare < capacity:
            return True
        if self._count_inside(start, end) > capacity:
            return False
        return self._min_places(start, end, chain, depth) < capacity

    def _count_between(self, start: float, end: float) -> int:
        """Different names used in the window; those of the last windows are remembered."""
        key = (start, end)
        if key not in self._counts_between:
            self._keep(self._counts_between)
            self._counts_between[key] = self._named.count(start, end)
        return self._counts_between[key]

    def _count_inside(self, start: float, end: float) -> int:
        """Different names with a certain use that lies in the window; those of the last windows are remembered."""
        key = (start, end)
        if key not in self._counts_inside:
            self._keep(self._counts_inside)
            self._counts_inside[key] = self._whole.count(start, end)
        return self._counts_inside[key]

    def max_places(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, depth: int) -> int:
        """Upper bound on the places, other than that of ``chain[depth]``, that were used from ``start`` to ``end``.

        By rule 3. ``excluded``: uses that do not count, two at most.
        """
        key = (start, end, excluded)
        if key not in self._windows:
            self._keep(self._windows)
            self._windows[key] = self._used_between(start, end, excluded)
        return self._windows[key].others(chain, depth)

    def _used_between(self, start: float, end: float, excluded: tuple[int, ...]) -> Window:
        """Every name and place that may have been used, apart from those of ``excluded``."""

        def used(name: Block) -> bool:
            return self._named.used(name, start, end, excluded)

        active = [i for i in excluded if self._starts[i] <= end and self._released[i] >= start]
        theirs = {name for index in active for name in self.uses[index].possible if not used(name)}
        unnamed = self._copies.total(start, end, active) + self._unnamed.most(start, end, active)
        return Window(self._named.count(start, end) - len(theirs) + unnamed, used)

    def _min_places(self, start: float, end: float, chain: Chain, depth: int) -> int:
        """Lower bound on the places, other than the name's, that were used between ``start`` and ``end`` (rule 4)."""
        last = self._last_inside(start, end)
        if last is None:
            return depth
        key = (start, end)
        if key not in self._insides:
            self._keep(self._insides)
            self._insides[key] = self._used_inside(start, end), self._used_before(start, self.uses[last])
        return max(window.others(chain, depth) for window in self._insides[key])

    def _used_inside(self, start: float, end: float) -> Window:
        """The names certainly used."""
        return Window(self._whole.count(start, end), lambda name: self._whole.has(name, start, end))

    def _used_before(self, start: float, last: Use) -> Window:
        """The names certainly used by ``last``, and by uses that had been released before it began."""

        def used(name: Block) -> bool:
            return name in own or self._freed.has(name, start, last.start)

        own = {*last.certain}
        more = sum(not self._freed.has(name, start, last.start) for name in own)
        return Window(self._freed.count(start, last.start) + more + last.spare[0], used)

    @staticmethod
    def _keep(windows: dict[Any, Any]) -> None:
        """Make room for one more."""
        if len(windows) >= _WINDOWS:
            windows.clear()

    def _last_inside(self, start: float, end: float) -> int | None:
        """The last use that began after ``start`` and ended before ``end``."""
        place = bisect_left(self._ending, bisect_left(self._starts, end)) - 1
        while place >= 0 and self._starts[self._ending[place]] > start:
            if self._ends[self._ending[place]] < end:
                return self._ending[place]
            place -= 1
        return None

    @cached_property
    def _windows(self) -> dict[tuple[float, float, tuple[int, ...]], Window]:
        return {}

    @cached_property
    def _counts_between(self) -> dict[tuple[float, float], int]:
        return {}

    @cached_property
    def _counts_inside(self) -> dict[tuple[float, float], int]:
        return {}

    @cached_property
    def _most_spare(self) -> int:
        return max((use.spare[0] for use in self.uses), default=0)

    @cached_property
    def _insides(self) -> dict[tuple[float, float], tuple[Window, Window]]:
        return {}

    @cached_property
    def _starts(self) -> "array[float]":
        return array("d", [use.start for use in self.uses])

    @cached_property
    def _ends(self) -> "array[float]":
        return array("d", [use.end for use in self.uses])

    @cached_property
    def _released(self) -> "array[float]":
        return array("d", [use.released for use in self.uses])

    @cached_property
    def _ending(self) -> "array[int]":
        """The uses whose end is known."""
        return array("i", [index for index, end in enumerate(self._ends) if end < float("inf")])

    @cached_property
    def _certain_users(self) -> Users:
        return Users([use.certain for use in self.uses])

    @cached_property
    def _first_ends(self) -> "array[float]":
        return self._certain_users.least(self._ends)

    @cached_property
    def _named(self) -> Overlaps:
        return Overlaps(self._starts, self._released, self.users)

    @cached_property
    def _copies(self) -> Held:
        return Held(self._starts, self._released, [use.copies for use in self.uses], RETURN_DELAY)

    @cached_property
    def _unnamed(self) -> Held:
        return Held(self._starts, self._released, [use.spare[1] for use in self.uses], RETURN_DELAY)

    @cached_property
    def _whole(self) -> Inside:
        return Inside(self._starts, self._ends, self._certain_users)

    @cached_property
    def _freed(self) -> Inside:
        return Inside(self._starts, self._released, self._certain_users)
