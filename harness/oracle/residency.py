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

from harness.oracle.blocks import Block, Chain
from harness.oracle.held import Held
from harness.oracle.inside import Inside
from harness.oracle.overlaps import Overlaps
from harness.oracle.users import Users
from harness.oracle.uses import Columns, Use
from harness.oracle.window import Lately, Window

RETURN_DELAY = 0.5
"""Seconds after a request's end until its blocks are certainly free: a step in flight may still write to them."""


@dataclass(frozen=True, eq=False)
class Residency:
    """A store and its users, in the order in which they started."""

    uses: Sequence[Use]
    capacity: int | None
    """Places; None if not known."""
    possibly_initial: Callable[[Block], bool]
    """Whether a name may have been in the store before the first use."""
    possible: Users | None = None
    """The users of the possible names, if they are known already."""
    like: "Residency | None" = None
    """A residency of the same uses but for what is certain: its tables serve here, too."""

    @cached_property
    def columns(self) -> Columns:
        """What is asked of all uses."""
        return self.like.columns.but(self.uses) if self.like else Columns.of(self.uses, self.possible)

    @property
    def users(self) -> Users:
        """Indices of the uses that may have used a name, in order."""
        return self.columns.possible

    @cached_property
    def may_evict(self) -> bool:
        """Whether anything may ever have been evicted (rule 2)."""
        if self.capacity is None:
            return True
        places = self.users.used + sum(self.columns.copies)
        return places + self.unnamed.most(float("-inf"), float("inf")) > self.capacity

    def first_end(self, name: Block) -> float:
        """When the first certain use of a name had ended; infinite if no use is certain."""
        return self._first_ends[name] if name < len(self._first_ends) else float("inf")

    def certainly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is certainly held when ``user`` looks for it (rules 1 to 3)."""
        name, starts = chain[depth], self.columns.starts
        if self.first_end(name) >= starts[user]:
            return False
        if not self.may_evict:
            return True
        if self.capacity is None:
            return False
        last = self._last_certain(name, starts[user])
        return self.fits(starts[last], self.columns.ends[user], (last, user), chain, depth)

    def _last_certain(self, name: Block, before: float) -> int:
        """The certain use of the name that began last, of those that ended before a time; there is one."""
        uses = self.columns.certain.of(name)
        place = self.columns.certain.up_to(name, bisect_left(self.columns.starts, before)) - 1
        while self.columns.ends[uses[place]] >= before:
            place -= 1
        best = place
        while place and self.columns.starts[uses[place - 1]] == self.columns.starts[uses[best]]:
            place -= 1
            best = place if self.columns.ends[uses[place]] < before else best
        return uses[best]

    def possibly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is possibly held when ``user`` looks for it (rules 1, 2 and 4)."""
        name, start = chain[depth], self.columns.starts[user]
        last = self.named.last_release(name, self.columns.ends[user], user)
        if last is None:
            if not self.possibly_initial(name):
                return False
            last = float("-inf")
        if self.capacity is None or not self.may_evict or last >= start:
            return True
        return self._may_remain(last, start, chain, depth)

    def fits(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, depth: int) -> bool:
        """Whether :meth:`max_places` leaves one place of a capacity that is known.

        Bounds that are found quickly are nearly always enough: most windows are far shorter or longer than it takes to
        fill the store.
        """
        capacity, names = self.capacity or 0, self.named.count(start, end)
        if names - 1 - sum(self.columns.sizes[index] for index in excluded) >= capacity:
            return False
        if names + depth + self.copies.total(start, end) + self.unnamed.total(start, end) < capacity:
            return True
        return self.max_places(start, end, excluded, chain, depth) < capacity

    def _may_remain(self, start: float, end: float, chain: Chain, depth: int) -> bool:
        """Whether :meth:`_min_places` leaves one place of a capacity that is known; mostly by quick bounds, too."""
        capacity = self.capacity or 0
        if self.named.count(start, end) + depth + self.columns.most_spare < capacity:
            return True
        if self._whole.count(start, end) > capacity:
            return False
        return self._min_places(start, end, chain, depth) < capacity

    def max_places(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, depth: int) -> int:
        """Upper bound on the places, other than that of ``chain[depth]``, that were used from ``start`` to ``end``.

        By rule 3. ``excluded``: uses that do not count, two at most.
        """
        window = self._windows.get((start, end, excluded), self._used_between)
        return window.others(chain, depth)

    def _used_between(self, start: float, end: float, excluded: tuple[int, ...]) -> Window:
        """Every name and place that may have been used, apart from those of ``excluded``."""
        # The window must not refer to this object, which refers to it: nobody would free them both.
        named = self.named

        def used(name: Block) -> bool:
            return named.used(name, start, end, excluded)

        active = [i for i in excluded if self.columns.starts[i] <= end and self.columns.released[i] >= start]
        theirs = {name for index in active for name in self.uses[index].possible if not used(name)}
        unnamed = self.copies.total(start, end, active) + self.unnamed.most(start, end, active)
        return Window(named.count(start, end) - len(theirs) + unnamed, used)

    def _min_places(self, start: float, end: float, chain: Chain, depth: int) -> int:
        """Lower bound on the places, other than the name's, that were used between ``start`` and ``end`` (rule 4)."""
        last = self._last_inside(start, end)
        if last is None:
            return depth
        windows = self._insides.get((start, end, last), self._used_certainly)
        return max(window.others(chain, depth) for window in windows)

    def _used_certainly(self, start: float, end: float, last: int) -> tuple[Window, Window]:
        """The names certainly used; and those by the use ``last``, and by uses that had been released before it began.

        ``last``: the last use that began after ``start`` and ended before ``end``.
        """
        whole, freed, before = self._whole, self._freed, self.uses[last]
        own = {*before.certain}
        more = sum(not freed.has(name, start, before.start) for name in own)
        return (
            Window(whole.count(start, end), lambda name: whole.has(name, start, end)),
            Window(
                freed.count(start, before.start) + more + before.spare[0],
                lambda name: name in own or freed.has(name, start, before.start),
            ),
        )

    def _last_inside(self, start: float, end: float) -> int | None:
        """The last use that began after ``start`` and ended before ``end``."""
        place = bisect_left(self._ending, bisect_left(self.columns.starts, end)) - 1
        while place >= 0 and self.columns.starts[self._ending[place]] > start:
            if self.columns.ends[self._ending[place]] < end:
                return self._ending[place]
            place -= 1
        return None

    @cached_property
    def _windows(self) -> Lately[Window]:
        return Lately()

    @cached_property
    def _insides(self) -> Lately[tuple[Window, Window]]:
        return Lately()

    @cached_property
    def _ending(self) -> "array[int]":
        """The uses whose end is known."""
        return array("i", [index for index, end in enumerate(self.columns.ends) if end < float("inf")])

    @cached_property
    def _first_ends(self) -> "array[float]":
        return self.columns.certain.least(self.columns.ends)

    @cached_property
    def named(self) -> Overlaps:
        """When names were used."""
        return self.like.named if self.like else Overlaps(self.columns.starts, self.columns.released, self.users)

    @cached_property
    def copies(self) -> Held:
        """The places of second copies."""
        return self.like.copies if self.like else self._held(self.columns.copies)

    @cached_property
    def unnamed(self) -> Held:
        """The places without a name."""
        return self.like.unnamed if self.like else self._held(self.columns.spare)

    def _held(self, places: Sequence[int]) -> Held:
        return Held(self.columns.starts, self.columns.released, places, RETURN_DELAY)

    @cached_property
    def _whole(self) -> Inside:
        return Inside(self.columns.starts, self.columns.ends, self.columns.certain)

    @cached_property
    def _freed(self) -> Inside:
        return Inside(self.columns.starts, self.columns.released, self.columns.certain)
