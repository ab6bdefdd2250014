"""What a server's offload tier is given, and what it gives back.

vLLM 0.32's OffloadingConnector with its own tier in host memory:

Rule 1. The unit is a chunk: one or more whole blocks. A request offers floor(N/C) chunks of C tokens, where N = T if
the tier is given prompts only (``offload_prompt_only``, the default), else max(T, T+G-1); computed here, found in the
prefix cache or pulled over NIXL, it makes no difference, and prompt_logprobs makes none either. A chunk that the tier
has, or is being given, is not stored again. So however requests overlap, *one* of them stores it.

Rule 2. A request that found L tokens in the prefix cache takes the chunks that follow, from the chunk in which L
lies, as long as the tier has them; at least one chunk's worth of new tokens, or none. It may take all T tokens.
A chunk that is being stored or loaded is waited for. What is loaded, and what lies before it, is not offered again.

Rule 3. When room is needed the least recently used chunk goes, those in transfer and those just offered excepted. A
chunk is used when it is stored, and when a request that offered or loaded it ends; the last one of a request counts as
the oldest. If not enough can go, nothing of the offer is stored; the engine counts that, and the checker looks there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.oracle.blocks import Block, Chain
from harness.oracle.residency import LIMBO, Residency, Use
from harness.oracle.visit import PhaseKey, Visit
from harness.verdict import Bounds


@dataclass(frozen=True, eq=False)
class OffloadTier:
    """One server's, for all its visits in order."""

    visits: Sequence[Visit]
    block_size: int
    blocks_per_chunk: int
    chunks: int | None
    """That it holds; None when not known."""
    prompt_only: bool | None
    attached: bool
    step_tokens: int | None
    """Of one engine step: a longer prompt makes its offer in parts."""

    @property
    def chunk(self) -> int:
        """Tokens."""
        return self.block_size * self.blocks_per_chunk

    @cached_property
    def offers(self) -> Residency:
        """Who offers which chunk, as if none were ever refused. A chunk has the name of its last block."""
        unsalted = {name for visit in self.visits if visit.salt is None for name in visit.chain}
        initially = unsalted.__contains__ if self.attached else frozenset[Block]().__contains__
        return Residency([self._use(visit) for visit in self.visits], self.chunks, initially)

    @cached_property
    def residency(self) -> Residency:
        """Which chunks are there when."""
        if not self.offers.crowded:
            return self.offers
        return Residency([self._reliable(i) for i in range(len(self.visits))], self.chunks, self.offers.initially)

    def loads(self, index: int, local: int) -> Iterator[int]:
        """Tokens that the visit may load after ``local`` tokens of its own cache: none, the least and the most."""
        chain = self._chunks_of(self.visits[index].chain)
        first = local // self.chunk
        certain = first
        while certain < len(chain) and self.residency.certainly(index, chain, certain):
            certain += 1
        possible = certain
        while possible < len(chain) and self._possibly(index, chain, possible):
            possible += 1
        # Loading nothing is not less than loading a little: another connector may then bring everything.
        for end in sorted({certain, min(certain + 1, possible), min(certain + 2, possible), possible}):
            tokens = end * self.chunk - local
            yield tokens if tokens >= self.chunk else 0

    def _possibly(self, index: int, chain: Chain, depth: int) -> bool:
        if self.residency.possibly(index, chain, depth):
            return True
        visit, reach = self.visits[index], (depth + 1) * self.chunk
        return any(
            (other.blind or (self.prompt_only is not True and reach <= other.longest))
            and other.start <= visit.end
            and other.salt == visit.salt
            and visit.prompt[: len(other.known)] == other.known
            for other in self._unknown_ends
            if other is not visit
        )

    @cached_property
    def _unknown_ends(self) -> list[Visit]:
        return [visit for visit in self.visits if not visit.ends_known]

    def stored(self) -> dict[PhaseKey, Bounds]:
        """Blocks stored in each phase."""
        sums: dict[PhaseKey, Bounds] = {}
        for name, users in self.residency.users.items():
            for phase, chunks in self._stores_of(name, users):
                blocks = Bounds(chunks.low * self.blocks_per_chunk, chunks.high * self.blocks_per_chunk)
                sums[phase] = sums.get(phase, Bounds(0, 0)) + blocks
        return sums

    def _stores_of(self, name: Block, users: list[int]) -> Iterator[tuple[PhaseKey, Bounds]]:
        """How often one chunk is stored, by phase."""
        first_end = self.offers.first_end(name)
        sure = first_end < float("inf")
        first = [i for i in users if self.visits[i].start <= first_end]
        phases = {self.visits[i].phase for i in first}
        # Rule 1: one of the first stores it, unless it was there before.
        at_least = int(sure and len(phases) == 1 and not self.residency.initially(name))
        for phase in phases:
            yield phase, Bounds(at_least, 1)
        if self.residency.crowded:
            later = [i for i in users if i not in first] + first[1:]
            for i in later:
                yield self.visits[i].phase, self._again(i, name)

    def _again(self, index: int, name: Block) -> Bounds:
        """Whether a later user stores it once more, since it may have gone."""
        visit = self.visits[index]
        chain = self._chunks_of((*visit.chain, *visit.beyond))
        depth = chain.index(name)
        if self.residency.certainly(index, chain, depth):
            return Bounds(0, 0)
        gone = name in self._certain_of(visit) and not self.residency.possibly(index, chain, depth)
        return Bounds(int(gone), 1)

    def _chunks_of(self, blocks: Chain) -> Chain:
        return blocks[self.blocks_per_chunk - 1 :: self.blocks_per_chunk]

    def _certain_of(self, visit: Visit) -> Chain:
        if not visit.sure:
            return ()
        output = visit.beyond if self.prompt_only is False and visit.ends_known else ()
        return self._chunks_of((*visit.chain, *output))

    def _use(self, visit: Visit) -> Use:
        output = () if self.prompt_only else visit.beyond
        possible = self._chunks_of((*visit.chain, *output))
        spare = (0, self.chunks or 0) if visit.blind else (0, 0)
        return Use(visit.start, visit.end, visit.latest + LIMBO, self._certain_of(visit), possible, spare)

    def _reliable(self, index: int) -> Use:
        """The use, with certain only what rule 3 cannot have refused, nor thrown out before the request's end."""
        uses, use = self.offers.uses, self.offers.uses[index]
        together = [i for i, other in enumerate(uses) if other.start <= use.latest and use.start <= other.latest]
        pinned = sum(len(uses[i].possible) for i in together)
        if self.chunks is None or pinned > self.chunks:
            return Use(use.start, use.end, use.latest, (), use.possible, use.spare)
        step = sum(self.visits[i].tokens for i in together)
        in_one_offer = self.step_tokens is not None and step <= self.step_tokens and not self._may_load(index)
        certain = tuple(n for n in use.certain if in_one_offer or self.offers.users[n][0] == index)
        return Use(use.start, use.end, use.latest, certain, use.possible, use.spare)

    def _may_load(self, index: int) -> bool:
        chain = self._chunks_of(self.visits[index].chain)
        return any(self.offers.possibly(index, chain, depth) for depth in range(len(chain)))
