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

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from harness.oracle.blocks import Block, Chain

RETURN_DELAY = 0.5
"""Seconds after a request's end until its blocks are certainly free: a step in flight may still write to them."""
_WINDOWS = 64


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
    def users(self) -> dict[Block, list[int]]:
        """Indices of the uses that may have used a name, in order."""
        return _by_name(use.possible for use in self.uses)

    @cached_property
    def may_evict(self) -> bool:
        """Whether anything may ever have been evicted (rule 2)."""
        if self.capacity is None:
            return True
        places = len(self.users) + sum(use.copies for use in self.uses) + _max_spare(self.uses)
        return places > self.capacity

    def first_end(self, name: Block) -> float:
        """When the first certain use of a name had ended; infinite if no use is certain."""
        return self._first_ends.get(name, float("inf"))

    def certainly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is certainly held when ``user`` looks for it (rules 1 to 3)."""
        name, looking = chain[depth], self.uses[user]
        if self.first_end(name) >= looking.start:
            return False
        if not self.may_evict:
            return True
        if self.capacity is None:
            return False
        before = [i for i in self._certain_users[name] if self.uses[i].end < looking.start]
        last = max(before, key=lambda i: self.uses[i].start)
        others = self.max_places(self.uses[last].start, looking.end, (last, user), chain[:depth], name)
        return others < self.capacity

    def possibly(self, user: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is possibly held when ``user`` looks for it (rules 1, 2 and 4)."""
        name, looking = chain[depth], self.uses[user]
        releases = (
            self.uses[i].released for i in self.users.get(name, ()) if i != user and self.uses[i].start <= looking.end
        )
        last = max(releases, default=None)
        if last is None:
            if not self.possibly_initial(name):
                return False
            last = float("-inf")
        if self.capacity is None or not self.may_evict or last >= looking.start:
            return True
        return self._min_places(last, looking.start, chain[:depth], name) < self.capacity

    def max_places(self, start: float, end: float, excluded: tuple[int, ...], chain: Chain, name: Block) -> int:
        """Upper bound on the places, other than the name's, that were used from ``start`` to ``end`` (rule 3)."""
        names, unnamed = self._window(start, end, excluded)
        return len(names) - (name in names) + sum(1 for before in chain if before not in names) + unnamed

    def _window(self, start: float, end: float, excluded: tuple[int, ...]) -> tuple[set[Block], int]:
        """The names used, and an upper bound on the places taken by copies and by blocks without a name."""
        key = (start, end, excluded)
        if key not in self._windows:
            if len(self._windows) >= _WINDOWS:
                self._windows.clear()
            active = [self.uses[index] for index in self._active(start, end) if index not in excluded]
            names = {name for use in active for name in use.possible}
            self._windows[key] = names, sum(use.copies for use in active) + _max_spare(active)
        return self._windows[key]

    @cached_property
    def _windows(self) -> dict[tuple[float, float, tuple[int, ...]], tuple[set[Block], int]]:
        # The blocks of one chain need the same window, one after the other.
        return {}

    def _active(self, start: float, end: float) -> Iterator[int]:
        for index in range(bisect_right(self._starts, end) - 1, -1, -1):
            if self._released_so_far[index] < start:
                return
            if self.uses[index].released >= start:
                yield index

    def _min_places(self, start: float, end: float, chain: Chain, name: Block) -> int:
        """Lower bound on the places, other than the name's, that were used between ``start`` and ``end`` (rule 4)."""
        inside = [
            use
            for use in self.uses[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
            if use.start > start and use.end < end
        ]
        if not inside:
            return len(chain)
        last = inside[-1]
        before_last = {n for use in inside if use.released < last.start or use is last for n in use.certain}
        together = {n for use in inside for n in use.certain}
        return max(len((before_last | {*chain}) - {name}) + last.spare[0], len((together | {*chain}) - {name}))

    @cached_property
    def _starts(self) -> list[float]:
        return [use.start for use in self.uses]

    @cached_property
    def _released_so_far(self) -> list[float]:
        return list(accumulate((use.released for use in self.uses), max))

    @cached_property
    def _certain_users(self) -> dict[Block, list[int]]:
        return _by_name(use.certain for use in self.uses)

    @cached_property
    def _first_ends(self) -> dict[Block, float]:
        return {name: min(self.uses[i].end for i in users) for name, users in self._certain_users.items()}


def _by_name(chains: Iterable[Chain]) -> dict[Block, list[int]]:
    found: dict[Block, list[int]] = {}
    for index, chain in enumerate(chains):
        for name in chain:
            found.setdefault(name, []).append(index)
    return found


def _max_spare(uses: Sequence[Use]) -> int:
    """Upper bound on the unnamed places held at one time: the maximum is reached when some user starts."""
    moments = [(use.start, 0, use.spare[1]) for use in uses]
    moments += [(use.released + RETURN_DELAY, 1, -use.spare[1]) for use in uses]
    return max(accumulate(places for _, _, places in sorted(moments)), default=0)
