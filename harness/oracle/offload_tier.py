"""Which chunks a server's offload tier stores, and how many tokens requests load from it.

vLLM 0.32's OffloadingConnector with its own tier in host memory:

Rule 1. The unit is a chunk: one or more full blocks. A request offers floor(N/C) chunks of C tokens, where N = T if
the tier stores prompts only (``offload_prompt_only``, the default), else max(T, T+G-1). Whether these tokens were
computed, found in the prefix cache or pulled over NIXL makes no difference, and neither does prompt_logprobs. A chunk
that the tier holds or is storing is not stored again. So however requests overlap, exactly one of them stores it.

Rule 2. A request that found L tokens in the prefix cache loads chunks from the one that contains the next token up to
the first that the tier lacks. It loads at least a chunk's worth of new tokens, or none, and may load all T tokens. It
waits for a chunk that is being stored or loaded. It does not offer chunks that it loads, nor earlier ones.

Rule 3. When room is needed, the least recently used chunk is evicted, except chunks in transfer and chunks just
offered. A chunk is used when it is stored, and when a request that offered or loaded it ends; the last chunk of a
request counts as the oldest. If not enough chunks can be evicted, nothing of the offer is stored; the engine counts
such refusals, and a checker reads that counter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.oracle.blocks import Block, Chain
from harness.oracle.residency import RETURN_DELAY, Residency, Use
from harness.oracle.server_request import PhaseKey, ServerRequest, possibly_cached_before
from harness.verdict import Bounds


@dataclass(frozen=True, eq=False)
class OffloadTier:
    """The offload tier of one server, and all requests of the server in order."""

    requests: Sequence[ServerRequest]
    block_size: int
    blocks_per_chunk: int
    chunks: int | None
    """Capacity in chunks; None if not known."""
    prompt_only: bool | None
    attached: bool
    step_tokens: int | None
    """Tokens per engine step: a longer prompt makes its offer in parts."""

    @property
    def chunk(self) -> int:
        """Tokens per chunk."""
        return self.block_size * self.blocks_per_chunk

    @cached_property
    def offers(self) -> Residency:
        """Which requests offer which chunks, as if no offer were refused. A chunk has the name of its last block."""
        uses = [self._use(request) for request in self.requests]
        return Residency(uses, self.chunks, possibly_cached_before(self.requests, attached=self.attached))

    @cached_property
    def residency(self) -> Residency:
        """Which chunks the tier holds at which times."""
        if not self.offers.may_evict:
            return self.offers
        uses = [self._reliable_use(index) for index in range(len(self.requests))]
        return Residency(uses, self.chunks, self.offers.possibly_initial)

    def loads(self, index: int, local: int) -> Iterator[int]:
        """Tokens that the request may load after ``local`` tokens of the prefix cache: none, the least and the most."""
        chain = self._chunks_of(self.requests[index].chain)
        first = local // self.chunk
        certain = first
        while certain < len(chain) and self.residency.certainly(index, chain, certain):
            certain += 1
        possible = certain
        while possible < len(chain) and self._possibly(index, chain, possible):
            possible += 1
        # If nothing is loaded, another connector may bring everything, so this case is more than a lower bound.
        for end in sorted({certain, min(certain + 1, possible), min(certain + 2, possible), possible}):
            tokens = end * self.chunk - local
            yield tokens if tokens >= self.chunk else 0

    def _possibly(self, index: int, chain: Chain, depth: int) -> bool:
        if self.residency.possibly(index, chain, depth):
            return True
        request, length = self.requests[index], (depth + 1) * self.chunk
        return any(
            other.prompt_unknown or (self.prompt_only is not True and length <= other.max_length)
            for other in self._with_unknown_blocks
            if request.may_find_unknown_blocks_of(other)
        )

    @cached_property
    def _with_unknown_blocks(self) -> list[ServerRequest]:
        return [request for request in self.requests if not request.blocks_known]

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
        first = [i for i in users if self.requests[i].start <= first_end]
        phases = {self.requests[i].phase for i in first}
        # Rule 1: one of the first requests stores the chunk, unless the tier held it before.
        certain = first_end < float("inf") and len(phases) == 1 and not self.residency.possibly_initial(name)
        for phase in phases:
            yield phase, Bounds(int(certain), 1)
        if self.residency.may_evict:
            later = [i for i in users if i not in first] + first[1:]
            for i in later:
                yield self.requests[i].phase, self._stored_again(i, name)

    def _stored_again(self, index: int, name: Block) -> Bounds:
        """How often a later request stores the chunk again because it may have been evicted."""
        request = self.requests[index]
        chain = self._chunks_of((*request.chain, *request.output_chain))
        depth = chain.index(name)
        if self.residency.certainly(index, chain, depth):
            return Bounds(0, 0)
        evicted = name in self._certain_chunks(request) and not self.residency.possibly(index, chain, depth)
        return Bounds(int(evicted), 1)

    def _chunks_of(self, blocks: Chain) -> Chain:
        return blocks[self.blocks_per_chunk - 1 :: self.blocks_per_chunk]

    def _certain_chunks(self, request: ServerRequest) -> Chain:
        """The chunks that the request certainly offers."""
        if not request.certain:
            return ()
        output = request.output_chain if self.prompt_only is False and request.blocks_known else ()
        return self._chunks_of((*request.chain, *output))

    def _use(self, request: ServerRequest) -> Use:
        output = () if self.prompt_only else request.output_chain
        possible = self._chunks_of((*request.chain, *output))
        spare = (0, self.chunks or 0) if request.prompt_unknown else (0, 0)
        released = request.released + RETURN_DELAY
        return Use(request.start, request.end, released, self._certain_chunks(request), possible, spare)

    def _reliable_use(self, index: int) -> Use:
        """The use with only the certain chunks that cannot have been refused, or evicted before its end (rule 3)."""
        uses, use = self.offers.uses, self.offers.uses[index]
        overlapping = [i for i, other in enumerate(uses) if other.start <= use.released and use.start <= other.released]
        held = sum(len(uses[i].possible) for i in overlapping)
        if self.chunks is None or held > self.chunks:
            return replace(use, certain=())
        step = sum(self.requests[i].tokens for i in overlapping)
        in_one_offer = self.step_tokens is not None and step <= self.step_tokens and not self._may_load(index)
        certain = tuple(n for n in use.certain if in_one_offer or self.offers.users[n][0] == index)
        return replace(use, certain=certain)

    def _may_load(self, index: int) -> bool:
        chain = self._chunks_of(self.requests[index].chain)
        return any(self.offers.possibly(index, chain, depth) for depth in range(len(chain)))
