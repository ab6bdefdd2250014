"""One server's caches over a whole run: from its requests to the growth of its counters in each phase."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.facts import Deployment, Role, Server
from harness.oracle.expectation import ServerExpectation, hull, summed, unpredictable
from harness.oracle.formulas import Formulas, unknown_on
from harness.oracle.offload_tier import OffloadTier
from harness.oracle.prefix_cache import Correction, PrefixCache
from harness.oracle.server_request import PhaseKey, ServerRequest
from harness.verdict import Bounds


@dataclass(frozen=True, eq=False)
class ServerModel:
    """A server and all its requests, in the order in which they started."""

    deployment: Deployment
    server: Server
    requests: Sequence[ServerRequest]
    disturbed: bool = False
    """Whether other clients use the server, too, so that any block may be evicted at any time."""

    @cached_property
    def formulas(self) -> Formulas:
        """How this server counts."""
        return Formulas(self.deployment, self.server)

    def expectation_of(self, index: int) -> ServerExpectation:
        """Bounds of the growth by one request, over all hits that it may have had."""
        request = self.requests[index]
        if request.prompt_unknown:
            return unpredictable(f"how the prompt of {request.request_id} was tokenized is not known")
        if request.why_unpredictable:
            return unpredictable(request.why_unpredictable)
        found = tuple(self._found(index))
        # All that the growth depends on: most requests are like others.
        key = (request.tokens, request.max_length, request.generated, request.pulls, request.reads_caches, found)
        if key not in self._known:
            known = self._expectation(request, found)
            self._known[key] = known, known.exact
        expectation, exact = self._known[key]
        return expectation if exact else expectation.because(self._why(index))

    @cached_property
    def _known(self) -> dict[Any, tuple[ServerExpectation, bool]]:
        return {}

    def _expectation(self, request: ServerRequest, found: Sequence[tuple[int, int]]) -> ServerExpectation:
        """``found``: the tokens that it may have found in the prefix cache and in the tier."""
        every = hull(
            self.formulas.counted(request, local, offered if asks else 0, asks_connectors=asks, tier_first=tier_first)
            for local, offered in found
            for asks in self.formulas.asks_connectors(request)
            for tier_first in self.formulas.tier_first
        )
        every = self.formulas.with_unknown_cache_rules(request, every)
        unknown = self.formulas.brought_by_unknown(request) | self.formulas.unpredictable()
        return replace(
            every,
            reload_bytes=self._reloadable(request),
            largest_store=self._storable(request),
            unpredictable={**unknown, **every.unpredictable},
        )

    def _reloadable(self, request: ServerRequest) -> int:
        """Bytes of the request's own tokens that the tier may hold."""
        return self._storable(request) if any(self.formulas.asks_connectors(request)) else 0

    def _storable(self, request: ServerRequest) -> int:
        """Bytes of full blocks that the request may offer to the tier, including output if the tier takes it."""
        if self.formulas.offloads is False:
            return 0
        tokens = request.tokens if self.server.offload_prompt_only else max(request.tokens, request.max_length)
        return tokens // self.formulas.block_size * self.formulas.block_bytes

    @cached_property
    def shared(self) -> dict[PhaseKey, ServerExpectation]:
        """Growth that belongs to no single request: stores, and the corrections by prefix-cache rules 3 and 4."""
        parts: dict[PhaseKey, list[ServerExpectation]] = {}
        for phase, part in (*self._corrected(), *self._stored()):
            parts.setdefault(phase, []).append(part)
        return {phase: summed(of_phase) for phase, of_phase in parts.items()}

    def _found(self, index: int) -> Iterator[tuple[int, int]]:
        """Tokens that the request may have found in the prefix cache and in the tier (the extremes), as pairs."""
        hits = self._cache.hits[index] if self._caches else Bounds(0, 0)
        if self._why_any_hits:
            hits = Bounds(0, hits.high)
        for blocks in range(hits.low, hits.high + 1):
            local = blocks * self.formulas.block_size
            for offered in dict.fromkeys(self._offered(index, local)):
                yield local, offered

    def _offered(self, index: int, local: int) -> tuple[int, ...]:
        request = self.requests[index]
        asks_tier = not request.pulls or any(self.formulas.tier_first) or not self.formulas.pulls
        if self.formulas.offloads is False or not any(self.formulas.asks_connectors(request)) or not asks_tier:
            return (0,)
        if self.deployment.cache_rules_unknown:
            return (0, *self._tier.loads(index, local))
        depth = local // self.formulas.block_size
        if self._caches and depth < self._cache.eligible(index) and self._cache.new_if_missed(index, depth):
            return (0,)
        return tuple(self._tier.loads(index, local))

    def _why(self, index: int) -> str:
        request = self.requests[index]
        if len(self.formulas.asks_connectors(request)) > 1:
            return (
                f"whether {self.server.version or 'this version'} asks its connectors for a prompt whose "
                "log-probabilities are wanted is not known"
            )
        if not request.certain:
            return f"how far the servers got with {request.request_id} is not known"
        return self._why_caches(request)

    def _why_caches(self, request: ServerRequest) -> str:
        name = request.request_id
        if self.server.engines > 1:
            return f"each of the {self.server.engines} engines of {self.server.name} has caches of its own"
        if self.disturbed:
            return f"other clients' requests may have evicted the blocks that {name} would find"
        if self._why_any_hits:
            return self._why_any_hits
        if self._caches and self._cache.residency.may_evict:
            return (
                f"which blocks {name} finds depends on the order of requests that overlap, "
                f"and on evictions from the pool of {self._cache.blocks} blocks"
            )
        if self._cache.attached and request.salt is None:
            return f"the prompt of {name} may have been cached before the run"
        return f"which blocks {name} finds depends on the order of requests that overlap"

    @property
    def _caches(self) -> bool:
        return self.formulas.caching and self.server.block_size is not None

    @property
    def _single_cache(self) -> bool:
        """Whether all requests, and no others, go through one cache.

        Otherwise each request may miss or find any block that an earlier request left, as with a pool of unknown size.
        A block that no request had before is missed in any case.
        """
        return self.server.engines == 1 and not self.disturbed

    @cached_property
    def _cache(self) -> PrefixCache:
        # Evictions are followed only if it is known which requests held the pool's blocks, and for how long.
        blocks = self.server.num_blocks
        return self._cache_of(None if blocks is None or not self._single_cache or self._why_any_hits else blocks - 1)

    @cached_property
    def _why_any_hits(self) -> str:
        """Why a request may find any part of the blocks that an unlimited pool would hold; mostly empty."""
        if self.deployment.cache_rules_unknown:
            return f"the rules of the model's caches are not known: {self.deployment.cache_rules_unknown}"
        blocks = self.server.num_blocks
        if not self.server.unknown_connectors or blocks is None or not self._cache_of(blocks - 1).residency.may_evict:
            return ""
        return f"which blocks the pool evicts depends on how long blocks are held, and {unknown_on(self.server)}"

    def _cache_of(self, blocks: int | None) -> PrefixCache:
        return PrefixCache(
            self.requests,
            self.formulas.block_size,
            blocks,
            attached=not self.deployment.launched,
            loads=self.formulas.offloads is not False,
            loads_parts=self.formulas.offloads is not False and self._blocks_per_chunk != 1,
        )

    @cached_property
    def _tier(self) -> OffloadTier:
        return OffloadTier(
            self.requests,
            self.formulas.block_size,
            self._blocks_per_chunk or 1,
            self._chunks,
            self.server.offload_prompt_only,
            attached=not self.deployment.launched,
            step_tokens=self.server.max_num_batched_tokens,
        )

    @property
    def _blocks_per_chunk(self) -> int | None:
        chunk, block = self.server.offload_block_size, self.server.block_size
        return chunk // block if chunk and block else None

    @property
    def _chunks(self) -> int | None:
        """The tier's capacity in chunks; None if not known."""
        if not self._single_cache or self.deployment.cache_rules_unknown:
            return None
        return self.formulas.deployment.offload_blocks_of(self.server)

    def _stored(self) -> Iterator[tuple[PhaseKey, ServerExpectation]]:
        if self.formulas.offloads is False or self.server.block_size is None:
            return
        block = self.formulas.block_bytes
        for phase, blocks in self._tier.stored().items():
            # If the chunk size is not known, a chunk may be one block, or so long that no prompt fills it.
            low = blocks.low if self._blocks_per_chunk is not None else 0
            part = ServerExpectation(offload_store_bytes=Bounds(low * block, blocks.high * block))
            yield phase, part.because("which chunks were in the offload tier already is not known")

    def _corrected(self) -> Iterator[tuple[PhaseKey, ServerExpectation]]:
        # Corrections assume that no request can load a block that no earlier request of this run had.
        if self._caches and not self._why_any_hits and not self.server.unknown_connectors:
            at_least, at_most = Counter[tuple[PhaseKey, bool]](), Counter[tuple[PhaseKey, bool]]()
            for one in self._cache.corrections():
                at_least[one.phase, one.pulls] += one.at_least
                at_most[one.phase, one.pulls] += one.at_most
            for phase, pulls in at_least:
                both = at_least[phase, pulls], at_most[phase, pulls]
                yield phase, self._correction(Correction(phase, *both, pulls))

    def _correction(self, correction: Correction) -> ServerExpectation:
        """Raises the lower bound of hits and reduces the upper one, and the reverse for tokens that are no hits."""
        size = self.formulas.block_size
        hits = Bounds(correction.at_least * size, -correction.at_most * size)
        misses = Bounds(correction.at_most * size, -correction.at_least * size)
        changed: dict[str, Any] = {"local_cache_hit": hits, "prefix_hits": hits}
        if self.formulas.has_connectors:
            changed["external_queries"] = misses
        if not correction.pulls or not self.formulas.pulls:
            changed["local_compute"] = misses
        elif not any(self.formulas.tier_first):
            changed |= {"external_kv_transfer": misses, "external_hits": misses}
            changed |= {"nixl_bytes": self._bytes(misses)} if self._reads_own_block_size else {}
        return ServerExpectation(**changed)

    @property
    def _reads_own_block_size(self) -> bool:
        return self.server.role is Role.PREFILL or self.formulas.prefill_block_size == self.server.block_size

    def _bytes(self, tokens: Bounds) -> Bounds:
        size, block = self.formulas.block_size, self.formulas.block_bytes
        return Bounds(tokens.low // size * block, tokens.high // size * block)
