"""The names used in a window of time, as a chain of names asks for them: how many places others than one's own took."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, TypeVarTuple

from harness.oracle.blocks import Block, Chain

A = TypeVarTuple("A")
R = TypeVar("R")
_KEPT = 64


@dataclass(slots=True)
class Lately(Generic[R]):
    """Answers about the last windows: the blocks of one chain ask about the same window, one after the other."""

    _known: dict[tuple[object, ...], R] = field(default_factory=dict)

    def get(self, window: tuple[*A], compute: Callable[[*A], R]) -> R:
        """``compute(*window)``, or what it returned lately."""
        if window not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[window] = compute(*window)
        return self._known[window]


@dataclass(slots=True)
class Window:
    """What was used in a window."""

    places: int
    """Places of the used names, and places without a name."""
    used: Callable[[Block], bool]
    """Whether a name was used."""
    _unused_before: dict[Block, int] = field(default_factory=dict)
    """For some names: how many of the names before it in its chain were not used. All its chains begin alike."""

    def others(self, chain: Chain, depth: int) -> int:
        """Places other than that of ``chain[depth]`` if the names before it in its chain take places, too."""
        return self.places - self.used(chain[depth]) + self._unused(chain, depth)

    def _unused(self, chain: Chain, depth: int) -> int:
        """How many of the names before ``chain[depth]`` were not used; asked for one depth after the other."""
        known = depth
        while known and chain[known] not in self._unused_before:
            known -= 1
        unused = self._unused_before.get(chain[known], 0)
        for before in range(known, depth):
            unused += not self.used(chain[before])
            self._unused_before[chain[before + 1]] = unused
        return unused
