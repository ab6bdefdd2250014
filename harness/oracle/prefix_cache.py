"""How many blocks of its prompt each request finds in a server's own prefix cache.

vLLM 0.32, one full-attention group:

Rule 1. A lookup takes the leading blocks that are cached, at most floor((T-1)/B), because the last token is always
computed, to sample from. A request with prompt_logprobs looks up nothing; its blocks are cached all the same.

Rule 2. The pool has ``num_gpu_blocks - 1`` blocks to give away (one is the null block). Free blocks without a hash are
given away first, then cached ones, least recently released first; a request releases its last block first. So the
cache is a least-recently-used store (:mod:`harness.oracle.residency`). Blocks with equal content are not merged: a
request that computes or pulls a block that another request is computing gets a copy of its own, and so does a request
that may not hit the block (rule 1).

Rule 3. If a request is not waiting for a load, its prompt is cached in the very step that admits it: hashes are entered
when blocks are given, before anything is computed. A prompt that does not fit into the step takes the whole step, so no
other request is looked up before the rest of it is entered, too. Hence, of overlapping requests that are computed on
this server, at most one misses a block that no request had before: the one admitted first.

Rule 4. A block that NIXL pulls is cached when it has arrived. So any of several overlapping requests may miss a block
that another is still pulling. But at least one of them, the first, misses a block that no request had before.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile

from harness.oracle.blocks import Block, Chain
from harness.oracle.replay import replay
from harness.oracle.residency import Residency
from harness.oracle.server_request import PhaseKey, ServerRequest, possibly_cached_before
from harness.oracle.sharing import Sharing
from harness.oracle.unknown_blocks import UnknownBlocks
from harness.oracle.users import Users
from harness.oracle.uses import Computed, Use
from harness.verdict import Bounds

_bounds = lru_cache(maxsize=1024)(Bounds)


@dataclass(frozen=True, slots=True)
class Correction:
    """Hits of one block to add to the sum of the requests' bounds, because the first request misses it (rules 3, 4)."""

    phase: PhaseKey
    at_least: int
    """Blocks to add to the lower bound of hits."""
    at_most: int
    """Blocks to subtract from the upper bound of hits."""
    pulls: bool
    """Whether requests that miss the block pull it; else they compute it."""


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """The prefix cache of one server, and all requests of the server in order."""

    requests: Sequence[ServerRequest]
    block_size: int
    blocks: int | None
    """Blocks that can be given away; None if not known."""
    attached: bool
    """Whether prompts without a salt may be cached from before the run."""
    loads: bool
    """Whether a request may load blocks from an offload tier before it computes the rest."""
    loads_parts: bool = False
    """Whether a request may load a part of a chunk because it has the rest of the chunk already."""

    @cached_property
    def residency(self) -> Residency:
        """Which blocks the cache holds at which times."""
        users = Users(self._blocks(index) for index in range(len(self.requests)))
        copies = array("i", self._copies(users))
        requests, size, blocks = self.requests, self.block_size, self.blocks
        # The uses must not refer to this object, which refers to them: nobody would free them all.
        uses = Computed(len(requests), lambda index: _use(requests[index], copies[index], size, blocks))
        initial = possibly_cached_before(self.requests, attached=self.attached)
        return Residency(uses, self.blocks, initial, possible=users)

    @cached_property
    def hits(self) -> list[Bounds]:
        """Blocks that each request finds, by rules 1 and 2 alone (and by a replay of the pool if it may evict)."""
        # Most of a run's requests find as much as many others.
        found = [_bounds(*self._found(index)) for index in range(len(self.requests))]
        if self.residency.may_evict and self.blocks is not None:
            replayed = replay(self.requests, self.block_size, self.blocks, attached=self.attached)
            for index, known in enumerate(replayed):
                found[index] = _bounds(max(found[index].low, known.low), min(found[index].high, known.high))
        return found

    def _found(self, index: int) -> tuple[int, int]:
        request, eligible = self.requests[index], self.eligible(index)
        low = _leading(self.residency.certainly(index, request.chain, depth) for depth in range(eligible))
        high = _leading(self.residency.possibly(index, request.chain, depth) for depth in range(low, eligible)) + low
        return low, max(high, self._unknown_hits(index))

    def new_if_missed(self, index: int, depth: int) -> bool:
        """Whether a miss of ``chain[depth]`` proves that the block is new, because it cannot have been evicted."""
        request, residency = self.requests[index], self.residency
        name = request.chain[depth]
        if residency.possibly_initial(name) or depth < self._unknown_hits(index):
            return False
        if not residency.may_evict or residency.capacity is None:
            return not residency.may_evict
        users = residency.users.of(name)
        other = next((i for i in users[:2] if i != index), None)
        first = request.end if other is None else min(self.requests[other].start, request.end)
        return residency.fits(first, request.end, (index,), request.chain, depth)

    def corrections(self) -> Iterator[Correction]:
        """The corrections of the requests' own bounds by rules 3 and 4."""
        for name in self.residency.users.of_several():
            yield from self._correction(name, self.residency.users.of(name))

    def _correction(self, name: Block, users: Sequence[int]) -> Iterator[Correction]:
        first_end = self.residency.first_end(name)
        first = [*takewhile(lambda i: self.requests[i].start <= first_end, users)]
        pulls = {self.requests[i].pulls and self.requests[i].reads_caches for i in first}
        depth = self.residency.users.depth(name)
        # A single first request certainly misses the block, and its own bounds include that.
        if len(first) < 2 or len(pulls) > 1:
            return
        more = {} if True in pulls else self._hits_after_the_first(name, depth, first)
        fewer = self._certainly_missed_by_one(name, depth, first)
        for phase in {self.requests[i].phase for i in first}:
            if more.get(phase) or fewer:
                yield Correction(phase, more.get(phase, 0), int(fewer), True in pulls)

    def _hits_after_the_first(self, name: Block, depth: int, first: list[int]) -> dict[PhaseKey, int]:
        """Rule 3: the certain hits in each phase; empty if the block may be evicted meanwhile."""
        looking = [i for i in first if self.requests[i].certain and depth < self.eligible(i)]
        if not looking or not self._stays(name, depth, first):
            return {}
        counts: dict[PhaseKey, int] = {}
        for i in looking:
            counts[self.requests[i].phase] = counts.get(self.requests[i].phase, 0) + 1
        return {phase: count - 1 for phase, count in counts.items()}

    def _stays(self, name: Block, depth: int, first: list[int]) -> bool:
        residency = self.residency
        # A block from before the run may be in the tier alone, and a load is cached only when it has ended.
        if self.loads and residency.possibly_initial(name):
            return False
        if not residency.may_evict:
            return True
        if residency.capacity is None or (self.loads and not self._none_loads(depth, first)):
            return False
        start, end = min(self.requests[i].start for i in first), max(self.requests[i].end for i in first)
        chain = self._blocks(first[0])
        return residency.fits(start, end, (), chain, depth)

    def _none_loads(self, depth: int, first: list[int]) -> bool:
        """Whether none of these requests loads anything up to this depth from the tier."""
        return all(self._may_load_at(i) > min(depth, self.eligible(i) - 1) for i in first)

    def _may_load_at(self, index: int) -> int:
        """The first depth at which the request may load from the tier, or the number of its blocks."""
        if index not in self._first_loads:
            depths = range(self.hits[index].low, self.eligible(index))
            loads = (depth for depth in depths if not self.new_if_missed(index, depth))
            self._first_loads[index] = next(loads, len(self.requests[index].chain))
        return self._first_loads[index]

    @cached_property
    def _first_loads(self) -> dict[int, int]:
        return {}

    def _certainly_missed_by_one(self, name: Block, depth: int, first: list[int]) -> bool:
        """Rule 4: whether the sum of the upper bounds counts one hit too many."""
        one_phase = len({self.requests[i].phase for i in first}) == 1
        return (
            one_phase
            and not self.residency.possibly_initial(name)
            and all(
                self.requests[i].certain
                and depth < min(self.eligible(i), self.hits[i].high)
                and depth >= self._unknown_hits(i)
                for i in first
            )
        )

    def _blocks(self, index: int) -> Chain:
        return (*self.requests[index].chain, *self.requests[index].output_chain)

    def eligible(self, index: int) -> int:
        """Leading blocks that the request may find at most (rule 1)."""
        request = self.requests[index]
        return (request.tokens - 1) // self.block_size if request.reads_caches and request.tokens else 0

    def _unknown_hits(self, index: int) -> int:
        """Blocks that the request may find because a request whose tokens are not all known may have left them."""
        return int(min(self._unknown.reach(index), self.eligible(index) * self.block_size)) // self.block_size

    @cached_property
    def _unknown(self) -> UnknownBlocks:
        return UnknownBlocks(self.requests, self.block_size)

    def _copies(self, users: Users) -> list[int]:
        """Rule 2: upper bound on the places that each request takes with second copies."""
        copies = [0] * len(self.requests)
        for name in users.of_several():
            indices = users.of(name)
            sharing = Sharing([self.requests[index] for index in indices], loads_parts=self.loads_parts)
            for index in indices:
                copies[index] += sharing.may_copy(self.requests[index])
        for index, request in enumerate(self.requests):
            shared_last = request.chain and len(users.of(request.chain[-1])) > 1
            copies[index] += int(bool(shared_last) and request.tokens % self.block_size == 0)
        return copies


def _leading(there: Iterator[bool]) -> int:
    """The number of values before the first that is False."""
    return sum(1 for _ in takewhile(bool, there))


def _use(request: ServerRequest, copies: int, block_size: int, blocks: int | None) -> Use:
    possible = (*request.chain, *request.output_chain) if request.output_chain else request.chain
    certain = possible if request.blocks_known else request.chain
    held = -(-max(request.tokens, request.known_length - 1) // block_size)
    # A place for one token more than the request had: the step that finds its end may be followed by another.
    longest = request.known_length if request.blocks_known else request.max_length
    most = -(-(longest + 1) // block_size)
    spare = (held - len(certain) if request.certain else 0, most - len(possible))
    if request.prompt_unknown:
        spare = (0, blocks or 0)
    certain = certain if request.certain else ()
    return Use(request.start, request.end, request.released, certain, possible, spare, copies)
