"""What a least-recently-used store certainly holds, and what it possibly holds, when its users overlap in time.

The block pool with its free queue and the offload tier are both such stores: of ``capacity`` places, one for each
name (a second copy of a name takes a second place); whoever uses a name puts it on the young side of all that was used
before; and when a place is needed the oldest name that nobody holds goes. Users are known by the intervals in which
they must have done what they did. From that follows, for any truth that fits the intervals:

    certainly held  ⊆  held  ⊆  possibly held

Rule 1 (order). A use that ended before another started came before it. Uses whose intervals meet are not ordered.

Rule 2 (no pressure). As long as all names ever used, with all copies and unnamed blocks, fit into the store, nothing
leaves it. Then a name is certainly there once some certain use of it has ended, and possibly there once a use of it
may have begun.

Rule 3 (certainly held). A name leaves only when all other places hold something younger or pinned. Everything younger
or pinned was used since its own last use began. So it is still there if the different names used since then, and
the unnamed blocks that can be held at one time, leave one place over.

Rule 4 (possibly held). Conversely it is gone when so many different names were certainly used after its last possible
use that no place is left: the younger ones leave later than it does.

Rule 5 (chains). Whoever lets go of a chain of blocks lets go of the last one first. So the blocks before a name in
its chain are younger than it, and count among the others in rules 3 and 4; those behind it are older and do not.

What was in the store before the first use is older than all of it, and no different from an empty place, except for
names that may have been there (``initially``).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from harness.oracle.blocks import Block, Chain


@dataclass(frozen=True, slots=True)
class Use:
    """One user of the store."""

    start: float
    """It did nothing before."""
    end: float
    """All that ``certain`` names was there by then; infinite where that is not known."""
    latest: float
    """It held nothing after."""
    certain: Chain
    """What it certainly used, first block first."""
    possible: Chain
    """What it may have used; ``certain`` is part of it."""
    spare: tuple[int, int] = (0, 0)
    """Places without a name that it held, at least and at most."""
    copies: int = 0
    """Places taken at most by second copies of names that are there already."""


@dataclass(frozen=True, eq=False)
class Residency:
    """A store and its users, in the order in which they started."""

    uses: Sequence[Use]
    capacity: int | None
    """Places; None when not known."""
    initially: Callable[[Block], bool] = lambda _name: False
    """Whether a name may have been there before the first use."""

    @cached_property
    def users(self) -> dict[Block, list[int]]:
        """Who may have used a name, in order."""
        found: dict[Block, list[int]] = {}
        for index, use in enumerate(self.uses):
            for name in use.possible:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def crowded(self) -> bool:
        """Whether anything may ever have had to go (rule 2)."""
        if self.capacity is None:
            return True
        places = len(self.users) + sum(use.copies for use in self.uses) + _most_spare(self.uses)
        return places > self.capacity

    def first_end(self, name: Block) -> float:
        """When the first certain use of a name had ended; infinite without one."""
        return self._first_ends.get(name, float("inf"))

    def certainly(self, by: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` is there when the user ``by`` looks for it (rules 1 to 3)."""
        name, looking = chain[depth], self.uses[by]
        if self.first_end(name) >= looking.start:
            return False
        if not self.crowded:
            return True
        if self.capacity is None:
            return False
        before = [i for i in self._certain_users[name] if self.uses[i].end < looking.start]
        last = max(before, key=lambda i: self.uses[i].start)
        others = self.most_between(self.uses[last].start, looking.end, (last, by), chain[:depth], name)
        return others < self.capacity

    def possibly(self, by: int, chain: Chain, depth: int) -> bool:
        """Whether ``chain[depth]`` may be there when the user ``by`` looks for it (rules 1, 2 and 4)."""
        name, looking = chain[depth], self.uses[by]
        users = self.users.get(name, ())
        latest = max(
            (self.uses[i].latest for i in users if i != by and self.uses[i].start <= looking.end), default=None
        )
        if latest is None and not self.initially(name):
            return False
        if latest is None:
            latest = float("-inf")
        if self.capacity is None or not self.crowded or latest >= looking.start:
            return True
        return self._least_between(latest, looking.start, chain[:depth], name) < self.capacity

    def most_between(self, start: float, end: float, besides: tuple[int, ...], chain: Chain, name: Block) -> int:
        """At most so many places, other than the name's, were used from ``start`` to ``end`` (rule 3)."""
        names, more = self._window(start, end, besides)
        return len(names) - (name in names) + sum(1 for before in chain if before not in names) + more

    def _window(self, start: float, end: float, besides: tuple[int, ...]) -> tuple[set[Block], int]:
        """Names used, and places taken by copies and by blocks without a name at most."""
        asked = (start, end, besides)
        if asked not in self._windows:
            if len(self._windows) >= _WINDOWS:
                self._windows.clear()
            active = [self.uses[index] for index in self._active(start, end) if index not in besides]
            names = {name for use in active for name in use.possible}
            self._windows[asked] = names, sum(use.copies for use in active) + _most_spare(active)
        return self._windows[asked]

    @cached_property
    def _windows(self) -> dict[tuple[float, float, tuple[int, ...]], tuple[set[Block], int]]:
        # The blocks of one chain ask for the same window, one after the other.
        return {}

    def _active(self, start: float, end: float) -> Iterator[int]:
        for index in range(bisect_right(self._starts, end) - 1, -1, -1):
            if self._latest_so_far[index] < start:
                return
            if self.uses[index].latest >= start:
                yield index

    def _least_between(self, start: float, end: float, chain: Chain, name: Block) -> int:
        inside = [
            use
            for use in self.uses[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
            if use.start > start and use.end < end
        ]
        if not inside:
            return len(chain)
        last = inside[-1]
        before_last = {n for use in inside if use.latest < last.start or use is last for n in use.certain}
        together = {n for use in inside for n in use.certain}
        return max(len((before_last | {*chain}) - {name}) + last.spare[0], len((together | {*chain}) - {name}))

    @cached_property
    def _starts(self) -> list[float]:
        return [use.start for use in self.uses]

    @cached_property
    def _latest_so_far(self) -> list[float]:
        return list(accumulate((use.latest for use in self.uses), max))

    @cached_property
    def _certain_users(self) -> dict[Block, list[int]]:
        found: dict[Block, list[int]] = {}
        for index, use in enumerate(self.uses):
            for name in use.certain:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def _first_ends(self) -> dict[Block, float]:
        return {name: min(self.uses[i].end for i in users) for name, users in self._certain_users.items()}


def _most_spare(uses: Sequence[Use]) -> int:
    """Unnamed places that can be held at one time, at most: a peak is reached when some user starts."""
    moments = [(use.start, 0, use.spare[1]) for use in uses]
    moments += [(use.latest + LIMBO, 1, -use.spare[1]) for use in uses]
    return max(accumulate(places for _, _, places in sorted(moments)), default=0)


_WINDOWS = 64
LIMBO = 0.5
"""Seconds for which an ended request's blocks may not be back yet: a step in flight may still write them."""
