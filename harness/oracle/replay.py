"""The block pool, followed block by block as long as requests come one after the other.

Bounds (:mod:`harness.oracle.residency`) cannot tell which of two blocks of nearly the same age was evicted first. If no
two requests overlap, the pool's own rules decide: free blocks without a name are given away first, then named ones,
least recently released first; a lookup takes the oldest copy of a name; a request releases its last block first.

Two things remain unknown. Each is followed as several possible states side by side:

- whether the blocks of one request were free when the next request took its blocks (a prefill server reads
  decode's notification one step later; a step in flight may still write to the blocks);
- whether a request that ended before its limit was given a place for one more token, in a step that began before its
  end was noticed.

The states soon become equal again: a block that one state evicted early is the next that the others evict.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.oracle.blocks import Block, Chain
from harness.oracle.residency import RETURN_DELAY
from harness.oracle.server_request import ServerRequest
from harness.verdict import Bounds

_Copy = tuple[int, int]
"""A named block: the index of the request that filled it, and its place in that request's chain."""
_MOST_STATES = 32
_MOST_BLOCKS = 8192
"""Largest pool that is followed: each state is copied for each request."""


def replay(requests: Sequence[ServerRequest], block_size: int, blocks: int, *, attached: bool) -> Iterator[Bounds]:
    """Blocks that each request finds, up to the first request that overlaps another or is not fully known.

    ``attached``: whether prompts without a salt may have been cached before the run.
    """
    states = [_Pool(blocks)] if blocks <= _MOST_BLOCKS else []
    end = float("-inf")
    for index, request in enumerate(requests):
        known = request.certain and request.blocks_known and not (attached and request.salt is None)
        alone = request.start > end and (index + 1 == len(requests) or requests[index + 1].start > request.end)
        if not states or not known or not alone:
            return
        soon = request.start < end + RETURN_DELAY
        after = [pool for state in states for pool in state.served(index, request, block_size, soon=soon)]
        if any(pool.too_small for pool in after):
            return
        yield Bounds(min(pool.found for pool in after), max(pool.found for pool in after))
        states = list({pool.signature: pool for pool in after}.values())[: _MOST_STATES + 1]
        if len(states) > _MOST_STATES:
            return
        end = request.end


@dataclass(slots=True)
class _Pool:
    unnamed: int
    """Free blocks without a name."""
    free: "OrderedDict[_Copy, Block]" = field(default_factory=OrderedDict)
    """Free blocks with a name, least recently released first."""
    copies: dict[Block, list[_Copy]] = field(default_factory=dict)
    holders: dict[_Copy, int] = field(default_factory=dict)
    returning: tuple[tuple[tuple[Block, _Copy], ...], int] = ((), 0)
    """Blocks that the previous request holds: its named blocks in order, and the number of its unnamed blocks."""
    found: int = 0
    too_small: bool = False
    """Whether the pool was too small, so that the request was preempted and later states are not known."""

    @property
    def signature(self) -> object:
        """Equal for equal states."""
        return self.unnamed, tuple(self.free), self.returning

    def served(self, index: int, request: ServerRequest, block_size: int, *, soon: bool) -> Iterator["_Pool"]:
        """All states that may follow; ``soon``: the blocks of the previous request may not be free yet."""
        names = (*request.chain, *request.output_chain)
        tokens = max(request.tokens, request.known_length - 1)
        places = {-(-tokens // block_size)}
        if request.max_length > request.known_length:
            places.add(-(-request.known_length // block_size))
        eligible = (request.tokens - 1) // block_size if request.reads_caches else 0
        for place in places:
            for returned in (True, False) if soon else (True,):
                yield self._copied()._serve(index, names, eligible, place, returned=returned)  # noqa: SLF001 - own class

    def _serve(self, index: int, names: Chain, eligible: int, places: int, *, returned: bool) -> "_Pool":
        if returned:
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
        if not returned:
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
                self.too_small = True
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
