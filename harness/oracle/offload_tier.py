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

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from itertools import takewhile
from math import inf

from harness.oracle.blocks import Block, Chain
from harness.oracle.held import Held
from harness.oracle.residency import RETURN_DELAY, Residency
from harness.oracle.server_request import PhaseKey, ServerRequest, possibly_cached_before
from harness.oracle.unknown_blocks import UnknownBlocks
from harness.oracle.uses import Computed, Use
from harness.oracle.window import Lately
from harness.verdict import Bounds


class _Reliable(Enum):
    """Which of the chunks that a request certainly offers are reliable."""

    NONE = auto()
    NEW = auto()
    """Those that no request had before."""
    ALL = auto()


@dataclass(frozen=True, slots=True)
class _Offer:
    """What requests offer to a tier."""

    blocks_per_chunk: int
    prompt_only: bool | None
    chunks: int | None

    def use(self, request: ServerRequest) -> Use:
        """A request's use of the tier if no offer is refused."""
        possible = self._chunks(request, output=not self.prompt_only)
        # The chunks that the request certainly offers.
        certain = self._chunks(request, output=self.prompt_only is False and request.blocks_known)
        spare = (0, self.chunks or 0) if request.prompt_unknown else (0, 0)
        released = request.released + RETURN_DELAY
        return Use(request.start, request.end, released, certain if request.certain else (), possible, spare)

    def _chunks(self, request: ServerRequest, *, output: bool) -> Chain:
        blocks = (*request.chain, *request.output_chain) if output and request.output_chain else request.chain
        return chunks_of(blocks, self.blocks_per_chunk)


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
        requests, offer = self.requests, _Offer(self.blocks_per_chunk, self.prompt_only, self.chunks)
        # The uses must not refer to this object, which refers to them: nobody would free them all.
        uses = Computed(len(requests), lambda index: offer.use(requests[index]))
        return Residency(uses, self.chunks, possibly_cached_before(self.requests, attached=self.attached))

    @cached_property
    def residency(self) -> Residency:
        """Which chunks the tier holds at which times."""
        if not self.offers.may_evict:
            return self.offers
        offers, reliable = self.offers, [self._reliable(index) for index in range(len(self.requests))]
        uses = Computed(len(reliable), lambda index: _reliable_use(offers, index, reliable[index]))
        return Residency(uses, self.chunks, offers.possibly_initial, like=offers)

    def loads(self, index: int, local: int) -> Iterator[int]:
        """Tokens that the request may load after ``local`` tokens of the prefix cache: none, the least and the most."""
        chain = self._chunks_of(self.requests[index].chain)
        first = local // self.chunk
        certain = first
        # A request may have found several numbers of blocks, and is asked about from each of them on.
        while certain < len(chain) and self._certain.get((index, certain), self._certainly):
            certain += 1
        possible = certain
        while possible < len(chain) and self._possible.get((index, possible), self._possibly):
            possible += 1
        # If nothing is loaded, another connector may bring everything, so this case is more than a lower bound.
        for end in sorted({certain, min(certain + 1, possible), min(certain + 2, possible), possible}):
            tokens = end * self.chunk - local
            yield tokens if tokens >= self.chunk else 0

    @cached_property
    def _certain(self) -> Lately[bool]:
        return Lately()

    @cached_property
    def _possible(self) -> Lately[bool]:
        return Lately()

    def _certainly(self, index: int, depth: int) -> bool:
        return self.residency.certainly(index, self._chunks_of(self.requests[index].chain), depth)

    def _possibly(self, index: int, depth: int) -> bool:
        chain = self._chunks_of(self.requests[index].chain)
        if self.residency.possibly(index, chain, depth):
            return True
        reach, length = self._unknown.reach(index), (depth + 1) * self.chunk
        # Chunks of generated tokens are in a tier that does not store prompts alone.
        return reach == inf or (self.prompt_only is not True and length <= reach)

    @cached_property
    def _unknown(self) -> UnknownBlocks:
        return UnknownBlocks(self.requests, self.block_size)

    def stored(self) -> dict[PhaseKey, Bounds]:
        """Blocks stored in each phase."""
        least, most = Counter[PhaseKey](), Counter[PhaseKey]()
        for phase, certain, possible in self._every_store():
            least[phase] += certain * self.blocks_per_chunk
            most[phase] += possible * self.blocks_per_chunk
        return {phase: Bounds(least[phase], most[phase]) for phase in most}

    def _every_store(self) -> Iterator[tuple[PhaseKey, int, int]]:
        users = self.offers.users
        for index, own in enumerate(self._own):
            if own:
                yield self.requests[index].phase, *self._stores_alone(index, own)
        for name in users.of_several():
            yield from self._stores_of(name, users.of(name))

    def _stores_alone(self, index: int, own: int) -> tuple[int, int]:
        """How many of the ``own`` chunks that no other request has are stored at least and at most.

        They are the last ones of its chain.
        """
        use = self.offers.uses[index]
        certain = () if self._may_have_been_left(index) else use.certain[len(use.possible) - own :]
        return sum(not self.offers.possibly_initial(name) for name in certain), own

    def _stores_of(self, name: Block, users: Sequence[int]) -> Iterator[tuple[PhaseKey, int, int]]:
        """How often one chunk is stored at least and at most, by phase."""
        first_end = self.offers.first_end(name)
        first = [*takewhile(lambda i: self.requests[i].start <= first_end, users)]
        phases = {self.requests[i].phase for i in first}
        # Rule 1: one of the first requests stores the chunk, unless the tier held it before.
        certain = first_end < inf and len(phases) == 1 and not self.residency.possibly_initial(name)
        certain = certain and not any(map(self._may_have_been_left, first))
        for phase in phases:
            yield phase, int(certain), 1
        if self.residency.may_evict:
            for i in users:
                if i != first[0]:
                    yield self.requests[i].phase, *self._stored_again(i, name)

    def _stored_again(self, index: int, name: Block) -> tuple[int, int]:
        """How often at least and at most a later request stores the chunk again because it may have been evicted."""
        use, depth = self.offers.uses[index], self.offers.users.depth(name)
        chain = use.possible
        if self.residency.certainly(index, chain, depth):
            return 0, 0
        offered = depth < len(use.certain)
        evicted = offered and not self.residency.possibly(index, chain, depth)
        return int(evicted and not self._may_have_been_left(index)), 1

    def _may_have_been_left(self, index: int) -> bool:
        """Whether the tier may hold the request's chunks because of a request of whose prompt no token is known."""
        return self._any_untold and self._unknown.reach(index) == inf

    @cached_property
    def _any_untold(self) -> bool:
        return any(request.prompt_unknown for request in self.requests)

    def _chunks_of(self, blocks: Chain) -> Chain:
        return chunks_of(blocks, self.blocks_per_chunk)

    def _reliable(self, index: int) -> "_Reliable":
        """Which of a request's certain chunks cannot have been refused, or evicted before its end (rule 3)."""
        start, released = self.offers.columns.starts[index], self.offers.columns.released[index]
        if self.chunks is None or self._offered.total(start, released) > self.chunks:
            return _Reliable.NONE
        step = self._tokens.total(start, released)
        in_one_offer = self.step_tokens is not None and step <= self.step_tokens and not self._may_load(index)
        return _Reliable.ALL if in_one_offer else _Reliable.NEW

    @cached_property
    def _offered(self) -> Held:
        """The chunks that requests may offer."""
        return self._held(self.offers.columns.sizes)

    @cached_property
    def _tokens(self) -> Held:
        """The tokens of prompts."""
        return self._held([request.tokens for request in self.requests])

    def _held(self, places: Sequence[int]) -> Held:
        return Held(self.offers.columns.starts, self.offers.columns.released, places, 0.0)

    def _may_load(self, index: int) -> bool:
        chain = self._chunks_of(self.requests[index].chain)
        # The last chunks of a request are mostly its own: nobody else can have left them.
        shared = len(chain) if self.attached else self.offers.columns.sizes[index] - self._own[index]
        return any(self.offers.possibly(index, chain, depth) for depth in range(min(shared, len(chain))))

    @cached_property
    def _own(self) -> Sequence[int]:
        """How many of its chunks each request shares with no other; they are the last ones of its chain."""
        return self.offers.users.sole(len(self.requests)) if self.offers.users.used else [0] * len(self.requests)


def chunks_of(blocks: Chain, blocks_per_chunk: int) -> Chain:
    """The chunks of whole blocks; each has the name of its last block."""
    return blocks if blocks_per_chunk == 1 else blocks[blocks_per_chunk - 1 :: blocks_per_chunk]


def _reliable_use(offers: Residency, index: int, which: _Reliable) -> Use:
    """The use with only those chunks."""
    use = offers.uses[index]
    if which is _Reliable.ALL or not use.certain:
        return use
    certain = tuple(n for n in use.certain if offers.users.first(n) == index) if which is _Reliable.NEW else ()
    return Use(use.start, use.end, use.released, certain, use.possible, use.spare, use.copies)
