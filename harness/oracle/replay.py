"""The block pool, block by block, as long as requests come one after the other.

Bounds (:mod:`harness.oracle.residency`) cannot tell which of two blocks of nearly the same age went first. Where no two
requests overlap, the pool's own rules tell it: free blocks without a name are given away first, then named ones, least
recently released first; a lookup takes the oldest copy of a name; a request returns its last block first.

What even then is not known is kept as several states side by side, each of them possible:

- whether the blocks of the request before were back when the next one took its own (a prefill server reads decode's
  notification a step later; a step in flight may still write them);
- whether a request that ended before its limit was given one more token's place, in a step begun before that was seen.

The states soon meet again: a block that one of them lost early is the next that the others lose.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.oracle.blocks import Block, Chain
from harness.oracle.residency import LIMBO
from harness.oracle.visit import Visit
from harness.verdict import Bounds

_Copy = tuple[int, int]
"""A named block: the visit that filled it, and its place in that visit's chain."""
_MOST_STATES = 32
_MOST_BLOCKS = 8192
"""Of a pool that is replayed: each state is copied for each request."""


def replay(visits: Sequence[Visit], block_size: int, blocks: int, *, anything_before: bool) -> Iterator[Bounds]:
    """Blocks that each visit finds, as far as one comes after the other and all is known of each.

    ``anything_before``: whether prompts without a salt may have been there before the run.
    """
    states = [_Pool(blocks)] if blocks <= _MOST_BLOCKS else []
    end = float("-inf")
    for index, visit in enumerate(visits):
        known = visit.sure and visit.ends_known and not (anything_before and visit.salt is None)
        alone = visit.start > end and (index + 1 == len(visits) or visits[index + 1].start > visit.end)
        if not states or not known or not alone:
            return
        hurried = visit.start < end + LIMBO
        after = [pool for state in states for pool in state.served(index, visit, block_size, hurried=hurried)]
        if any(pool.lost for pool in after):
            return
        yield Bounds(min(pool.found for pool in after), max(pool.found for pool in after))
        states = list({pool.signature: pool for pool in after}.values())[: _MOST_STATES + 1]
        if len(states) > _MOST_STATES:
            return
        end = visit.end


@dataclass(slots=True)
class _Pool:
    unnamed: int
    """Free blocks without a name."""
    free: "OrderedDict[_Copy, Block]" = field(default_factory=OrderedDict)
    """Free blocks with one, least recently released first."""
    copies: dict[Block, list[_Copy]] = field(default_factory=dict)
    holders: dict[_Copy, int] = field(default_factory=dict)
    returning: tuple[tuple[tuple[Block, _Copy], ...], int] = ((), 0)
    """What the request before holds: named blocks in order, and how many without a name."""
    found: int = 0
    lost: bool = False
    """The pool was too small: a preemption, and nothing more is known."""

    @property
    def signature(self) -> object:
        """What tells two states apart."""
        return self.unnamed, tuple(self.free), self.returning

    def served(self, index: int, visit: Visit, block_size: int, *, hurried: bool) -> Iterator["_Pool"]:
        """All states that may follow."""
        names = (*visit.chain, *visit.beyond)
        tokens = max(visit.tokens, len(visit.known) - 1)
        places = {-(-tokens // block_size)}
        if visit.longest > len(visit.known):
            places.add(-(-len(visit.known) // block_size))
        eligible = (visit.tokens - 1) // block_size if visit.reads else 0
        for place in places:
            for back in (True, False) if hurried else (True,):
                yield self._copied()._serve(index, names, eligible, place, back=back)  # noqa: SLF001 - its own kind

    def _serve(self, index: int, names: Chain, eligible: int, places: int, *, back: bool) -> "_Pool":
        if back:
            self._return()
        held = list(self._hits(names[:eligible]))
        self.found = len(held)
        for _, copy in held:
            self.holders[copy] = self.holders.get(copy, 0) + 1
            self.free.pop(copy, None)
        self._take(places - len(held))
        for depth, name in enumerate(names[len(held) :], len(held)):
            copy = (index, depth)
            self.copies.setdefault(name, []).append(copy)
            self.holders[copy] = 1
            held.append((name, copy))
        if not back:
            self._return()
        self.returning = (tuple(held), places - len(held))
        return self

    def _hits(self, names: Chain) -> Iterator[tuple[Block, _Copy]]:
        for name in names:
            if name not in self.copies:
                return
            yield name, self.copies[name][0]

    def _take(self, count: int) -> None:
        unnamed = min(count, self.unnamed)
        self.unnamed -= unnamed
        for _ in range(count - unnamed):
            if not self.free:
                self.lost = True
                return
            copy, name = self.free.popitem(last=False)
            self.copies[name].remove(copy)
            if not self.copies[name]:
                del self.copies[name]

    def _return(self) -> None:
        named, unnamed = self.returning
        for name, copy in reversed(named):
            self.holders[copy] -= 1
            if not self.holders[copy]:
                del self.holders[copy]
                self.free[copy] = name
        self.unnamed += unnamed
        self.returning = ((), 0)

    def _copied(self) -> "_Pool":
        copies = {name: list(each) for name, each in self.copies.items()}
        return _Pool(self.unnamed, OrderedDict(self.free), copies, dict(self.holders), self.returning)
