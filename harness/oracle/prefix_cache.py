"""How many blocks of its prompt each request finds in a server's own prefix cache.

vLLM 0.32, one full-attention group:

Rule 1. A lookup takes the leading blocks that are cached, at most floor((T-1)/B): the last token is always computed,
to sample from. A request for prompt_logprobs looks up nothing, and is cached all the same.

Rule 2. The pool has ``num_gpu_blocks - 1`` blocks to give away (one is the null block). Free blocks without a hash are
given away first, then cached ones, least recently released first; a request releases its blocks last one first. So
the cache is a least-recently-used store (:mod:`harness.oracle.residency`). A block is never shared by content: who
computes or pulls a block that another is computing gets a copy of its own, and so does who may not hit it (rule 1).

Rule 3. A request without a load under way has its prompt cached in the very step that admits it: the hashes are
entered when the blocks are given, before anything is computed. A prompt that does not fit into the step takes all
of it, so nobody else is looked up before the rest is entered, too. Hence among requests that are computed here, *at
most one* misses a block that none had before, however they overlap: whoever is admitted first.

Rule 4. What NIXL pulls is cached when it has arrived. Of requests that overlap, any may then miss what another is still
pulling. But a block that nobody had before is missed by one of them *at least*: the first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.oracle.blocks import Block
from harness.oracle.replay import replay
from harness.oracle.residency import Residency, Use
from harness.oracle.visit import PhaseKey, Visit
from harness.verdict import Bounds


@dataclass(frozen=True, slots=True)
class Correction:
    """A block that the first of several requests misses (rules 3 and 4), when all their bounds are added up."""

    phase: PhaseKey
    at_least: int
    """More hits than the lower bounds tell, blocks."""
    at_most: int
    """Fewer hits than the upper bounds tell, blocks."""
    pulls: bool
    """Whether those who miss it pull it; else they compute it."""


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """One server's, for all its visits in order."""

    visits: Sequence[Visit]
    block_size: int
    blocks: int | None
    """That can be given away."""
    attached: bool
    """Whether prompts without a salt may have been asked before the run."""
    loads: bool
    """Whether a request may load blocks from an offload tier before it computes the rest."""
    loads_parts: bool = False
    """Whether it may load a part of a chunk, and have the rest of it already."""

    @cached_property
    def residency(self) -> Residency:
        """Which blocks are there when."""
        unsalted = {name for visit in self.visits if visit.salt is None for name in visit.chain}
        initially = unsalted.__contains__ if self.attached else frozenset[Block]().__contains__
        copies = self._copies()
        uses = [self._use(visit, copies[index]) for index, visit in enumerate(self.visits)]
        return Residency(uses, self.blocks, initially)

    @cached_property
    def hits(self) -> list[Bounds]:
        """Blocks that each visit finds; from rules 1 and 2 alone."""
        found = [self._found(index) for index in range(len(self.visits))]
        for index, known in enumerate(self._replayed()):
            found[index] = Bounds(max(found[index].low, known.low), min(found[index].high, known.high))
        return found

    def _replayed(self) -> Iterator[Bounds]:
        if self.residency.crowded and self.blocks is not None:
            yield from replay(self.visits, self.block_size, self.blocks, anything_before=self.attached)

    def _found(self, index: int) -> Bounds:
        visit, eligible = self.visits[index], self.eligible(index)
        low = _leading(self.residency.certainly(index, visit.chain, depth) for depth in range(eligible))
        high = _leading(self.residency.possibly(index, visit.chain, depth) for depth in range(low, eligible)) + low
        return Bounds(low, max(high, self._by_unknown_tokens(index)))

    def new_if_missed(self, index: int, depth: int) -> bool:
        """Whether nobody had ``chain[depth]`` before, if the visit does not find it: it would still be there."""
        visit, residency = self.visits[index], self.residency
        name = visit.chain[depth]
        if residency.initially(name) or depth < self._by_unknown_tokens(index):
            return False
        if not residency.crowded or residency.capacity is None:
            return not residency.crowded
        others = (residency.uses[i].start for i in residency.users[name] if i != index)
        first = min((start for start in others if start <= visit.end), default=visit.end)
        others_places = residency.most_between(first, visit.end, (index,), visit.chain[:depth], name)
        return others_places < residency.capacity

    def corrections(self) -> Iterator[Correction]:
        """What rules 3 and 4 add."""
        for name, users in self.residency.users.items():
            if len(users) > 1:
                yield from self._correction(name, users)

    def _correction(self, name: Block, users: list[int]) -> Iterator[Correction]:
        first_end = self.residency.first_end(name)
        first = [i for i in users if self.visits[i].start <= first_end]
        pulls = {self.visits[i].pulls and self.visits[i].reads for i in first}
        depth = self._depth(name, first[0])
        if len(first) < 2 or len(pulls) > 1:  # one alone misses it, and its own bounds say so
            return
        more = {} if True in pulls else self._admitted_after_the_first(name, depth, first)
        fewer = self._certainly_missed_by_one(name, depth, first)
        for phase in {self.visits[i].phase for i in first}:
            if more.get(phase) or fewer:
                yield Correction(phase, more.get(phase, 0), int(fewer), True in pulls)

    def _admitted_after_the_first(self, name: Block, depth: int, first: list[int]) -> dict[PhaseKey, int]:
        """Rule 3: hits in each phase, if the block was there all the time."""
        looking = [i for i in first if self.visits[i].sure and depth < self.eligible(i)]
        if not looking or not self._stays(name, depth, first):
            return {}
        counts: dict[PhaseKey, int] = {}
        for i in looking:
            counts[self.visits[i].phase] = counts.get(self.visits[i].phase, 0) + 1
        return {phase: count - 1 for phase, count in counts.items()}

    def _stays(self, name: Block, depth: int, first: list[int]) -> bool:
        residency = self.residency
        if self.loads and residency.initially(name):
            return False  # it may be in the tier alone, and a load is cached only when it is over
        if not residency.crowded:
            return True
        if residency.capacity is None or (self.loads and not self._nobody_loads(depth, first)):
            return False
        start, end = min(residency.uses[i].start for i in first), max(residency.uses[i].end for i in first)
        chain = self.visits[first[0]].chain[:depth]
        return residency.most_between(start, end, (), chain, name) < residency.capacity

    def _nobody_loads(self, depth: int, first: list[int]) -> bool:
        """Whether none of them takes anything before the block from the tier."""
        return all(
            self.new_if_missed(i, before)
            for i in first
            for before in range(self.hits[i].low, min(depth + 1, self.eligible(i)))
        )

    def _certainly_missed_by_one(self, name: Block, depth: int, first: list[int]) -> bool:
        """Rule 4: whether the upper bounds count one hit too many."""
        one_phase = len({self.visits[i].phase for i in first}) == 1
        return (
            one_phase
            and not self.residency.initially(name)
            and all(
                self.visits[i].sure
                and depth < min(self.eligible(i), self.hits[i].high)
                and depth >= self._by_unknown_tokens(i)
                for i in first
            )
        )

    def _depth(self, name: Block, index: int) -> int:
        return (*self.visits[index].chain, *self.visits[index].beyond).index(name)

    def eligible(self, index: int) -> int:
        """Leading blocks that the visit may find at most (rule 1)."""
        visit = self.visits[index]
        return (visit.tokens - 1) // self.block_size if visit.reads and visit.tokens else 0

    def _by_unknown_tokens(self, index: int) -> int:
        """Blocks that the visit may find because a request whose tokens are not all known may have left them."""
        visit = self.visits[index]
        reach = (
            other.longest // self.block_size if not other.blind else self.eligible(index)
            for other in self._unknown_ends
            if other.start <= visit.end
            and other is not visit
            and other.salt == visit.salt
            and visit.prompt[: len(other.known)] == other.known
        )
        return min(max(reach, default=0), self.eligible(index))

    @cached_property
    def _unknown_ends(self) -> list[Visit]:
        return [visit for visit in self.visits if not visit.ends_known]

    def _use(self, visit: Visit, copies: int) -> Use:
        everything = (*visit.chain, *visit.beyond)
        certain = everything if visit.ends_known else visit.chain
        held = -(-max(visit.tokens, len(visit.known) - 1) // self.block_size)
        # One token more than it had: the step that finds the end may have been followed by another.
        most = -(-(visit.longest + 1 if not visit.ends_known else len(visit.known) + 1) // self.block_size)
        spare = (held - len(certain) if visit.sure else 0, most - len(everything))
        if visit.blind:
            spare = (0, self.blocks or 0)
        return Use(visit.start, visit.end, visit.latest, certain if visit.sure else (), everything, spare, copies)

    def _copies(self) -> list[int]:
        """Rule 2: second copies that each visit may take places with, at most."""
        users: dict[Block, list[int]] = {}
        for index, visit in enumerate(self.visits):
            for name in (*visit.chain, *visit.beyond):
                users.setdefault(name, []).append(index)
        copies = [0] * len(self.visits)
        for sharing in users.values():
            for index in sharing:
                copies[index] += self._may_copy(index, sharing)
        for index, visit in enumerate(self.visits):
            shared_last = visit.chain and len(users[visit.chain[-1]]) > 1
            copies[index] += int(bool(shared_last) and visit.tokens % self.block_size == 0)
        return copies

    def _may_copy(self, index: int, sharing: list[int]) -> bool:
        visit = self.visits[index]
        if not visit.reads:
            return len(sharing) > 1
        others = (self.visits[i] for i in sharing if i != index)
        return any(
            other.start <= visit.latest and visit.start <= other.latest
            for other in others
            # Of two that are computed here, the second hits what the first was given; a chunk under way is waited for.
            if visit.pulls or other.pulls or self.loads_parts
        )


def _leading(there: Iterator[bool]) -> int:
    """How many come before the first that is False."""
    count = 0
    for one in there:
        if not one:
            break
        count += 1
    return count
