"""One server's caches over a whole run: from its visits to what it must count in each phase."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.facts import Deployment, Role, Server
from harness.oracle.expectation import ServerExpectation, hull, unpredictable
from harness.oracle.formulas import Formulas, unknown_on
from harness.oracle.offload_tier import OffloadTier
from harness.oracle.prefix_cache import Correction, PrefixCache
from harness.oracle.visit import PhaseKey, Visit
from harness.verdict import Bounds

_TOTALS = frozenset({"prompt_tokens", "generation_tokens"})
"""What does not depend on any cache."""


@dataclass(frozen=True, eq=False)
class ServerModel:
    """A server and all its visits, in the order in which they started."""

    deployment: Deployment
    server: Server
    visits: Sequence[Visit]
    disturbed: bool = False
    """Whether somebody else asks the server, too: then anything may be evicted at any time."""

    @cached_property
    def formulas(self) -> Formulas:
        """How this server counts."""
        return Formulas(self.deployment, self.server)

    def visited(self, index: int) -> ServerExpectation:
        """What one visit adds, whatever it found."""
        visit = self.visits[index]
        if visit.blind:
            return unpredictable(f"how the prompt of {visit.who} was tokenized is not known")
        if visit.unknown:
            return unpredictable(visit.unknown)
        every = hull(
            self.formulas.counted(visit, local, offered if connected else 0, connected=connected, tier_first=tier_first)
            for local, offered in self._found(index)
            for connected in self.formulas.connected(visit)
            for tier_first in self.formulas.tier_first
        )
        every = self.formulas.with_other_rules(visit, every)
        unknown = self.formulas.brought_by_unknown(visit) | self.formulas.unpredictable()
        return replace(
            every.because(self._why(index)),
            reload_bytes=self._reloadable(visit),
            largest_store=self._storable(visit),
            unpredictable={**unknown, **every.unpredictable},
        )

    def _reloadable(self, visit: Visit) -> int:
        """Bytes of what the tier may hold of the visit's own tokens."""
        return self._storable(visit) if any(self.formulas.connected(visit)) else 0

    def _storable(self, visit: Visit) -> int:
        """Bytes that the visit may offer to the tier: of whole blocks, the output's included where that is taken."""
        if self.formulas.offloads is False:
            return 0
        tokens = visit.tokens if self.server.offload_prompt_only else max(visit.tokens, visit.longest)
        return tokens // self.formulas.block_size * self.formulas.block_bytes

    @cached_property
    def shared(self) -> dict[PhaseKey, ServerExpectation]:
        """What the visits of each phase add together: stores, and what rules 3 and 4 of the prefix cache correct."""
        sums: dict[PhaseKey, ServerExpectation] = {}
        for phase, part in (*self._corrected(), *self._stored()):
            sums[phase] = sums.get(phase, ServerExpectation()) + part
        return sums

    def _found(self, index: int) -> Iterator[tuple[int, int]]:
        """Everything that the visit may have found: tokens here, tokens in the tier; extremes of the latter."""
        hits = self._cache.hits[index] if self._caches else Bounds(0, 0)
        if self._undecided:
            hits = Bounds(0, hits.high)
        for blocks in range(hits.low, hits.high + 1):
            local = blocks * self.formulas.block_size
            for offered in dict.fromkeys(self._offered(index, local)):
                yield local, offered

    def _offered(self, index: int, local: int) -> tuple[int, ...]:
        visit = self.visits[index]
        asks = not visit.pulls or any(self.formulas.tier_first) or not self.formulas.pulls
        if self.formulas.offloads is False or not any(self.formulas.connected(visit)) or not asks:
            return (0,)
        if self.deployment.cache_rules_unknown:
            return (0, *self._tier.loads(index, local))
        depth = local // self.formulas.block_size
        if self._caches and depth < self._cache.eligible(index) and self._cache.new_if_missed(index, depth):
            return (0,)
        return tuple(self._tier.loads(index, local))

    def _why(self, index: int) -> str:
        visit = self.visits[index]
        if len(self.formulas.connected(visit)) > 1:
            return (
                f"whether {self.server.version or 'this version'} asks its connectors for a prompt whose "
                "log-probabilities are wanted is not known"
            )
        if not visit.sure:
            return f"nobody knows how far {visit.who} came"
        return self._why_caches(visit)

    def _why_caches(self, visit: Visit) -> str:
        if self.server.engines > 1:
            return f"each of the {self.server.engines} engines of {self.server.name} has caches of its own"
        if self.disturbed:
            return f"somebody else's requests may have evicted what {visit.who} would find"
        if self._undecided:
            return self._undecided
        if self._caches and self._cache.residency.crowded:
            return (
                f"which blocks {visit.who} finds depends on the order of requests that overlap, "
                f"and on what the pool of {self._cache.blocks} blocks had to evict"
            )
        if self._cache.attached and visit.salt is None:
            return f"the deployment may have been asked the prompt of {visit.who} before the run"
        return f"which blocks {visit.who} finds depends on the order of requests that overlap"

    @property
    def _caches(self) -> bool:
        return self.formulas.caching and self.server.block_size is not None

    @property
    def _one_cache(self) -> bool:
        """Whether all visits, and they alone, go through one cache.

        Else each may miss what another left, and find whatever one left at any time before: as with a pool of which
        the size is not known. What nobody asked before is missed all the same.
        """
        return self.server.engines == 1 and not self.disturbed

    @cached_property
    def _cache(self) -> PrefixCache:
        # What the pool had to evict is followed only where it is known who held its blocks, and for how long.
        blocks = self.server.num_blocks
        return self._cache_of(None if blocks is None or not self._one_cache or self._undecided else blocks - 1)

    @cached_property
    def _undecided(self) -> str:
        """Why a visit may find anything between nothing and all that a pool without end would hold; mostly empty."""
        if self.deployment.cache_rules_unknown:
            return f"what the model's caches keep is not known: {self.deployment.cache_rules_unknown}"
        blocks = self.server.num_blocks
        if not self.server.unknown_connectors or blocks is None or not self._cache_of(blocks - 1).residency.crowded:
            return ""
        return f"what the pool had to evict depends on how long blocks are held, and {unknown_on(self.server)}"

    def _cache_of(self, blocks: int | None) -> PrefixCache:
        return PrefixCache(
            self.visits,
            self.formulas.block_size,
            blocks,
            attached=not self.deployment.launched,
            loads=self.formulas.offloads is not False,
            loads_parts=self.formulas.offloads is not False and self._blocks_per_chunk != 1,
        )

    @cached_property
    def _tier(self) -> OffloadTier:
        per_chunk = self._blocks_per_chunk
        return OffloadTier(
            self.visits,
            self.formulas.block_size,
            per_chunk or 1,
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
        if not self._one_cache or self.deployment.cache_rules_unknown:
            return None
        told, given = self.server.offload_blocks, self.server.offload_bytes
        if told is not None or given is None or not self.formulas.block_bytes or self._blocks_per_chunk is None:
            return told
        size = self.formulas.block_bytes * self._blocks_per_chunk
        return given // (-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)  # vLLM aligns chunks to pages

    def _stored(self) -> Iterator[tuple[PhaseKey, ServerExpectation]]:
        if self.formulas.offloads is False or self.server.block_size is None:
            return
        block = self.formulas.block_bytes
        for phase, blocks in self._tier.stored().items():
            # Of chunks of a size not told: one long one is never filled, one block always is.
            low = blocks.low if self._blocks_per_chunk is not None else 0
            part = ServerExpectation(offload_store_bytes=Bounds(low * block, blocks.high * block))
            yield phase, part.because("which chunks were in the offload tier already is not known")

    def _corrected(self) -> Iterator[tuple[PhaseKey, ServerExpectation]]:
        # They narrow bounds by what is known of loads: that what nobody here had before, nobody loads.
        if self._caches and not self._undecided and not self.server.unknown_connectors:
            for correction in self._cache.corrections():
                yield correction.phase, self._correction(correction)

    def _correction(self, correction: Correction) -> ServerExpectation:
        """More hits at least and fewer at most, and so less and more of what is not a hit."""
        size = self.formulas.block_size
        hits = Bounds(correction.at_least * size, -correction.at_most * size)
        misses = Bounds(correction.at_most * size, -correction.at_least * size)
        changed: dict[str, Any] = {"local_cache_hit": hits, "prefix_hits": hits}
        if self.formulas.connected_at_all:
            changed["external_queries"] = misses
        if not correction.pulls or not self.formulas.pulls:
            changed["local_compute"] = misses
        elif not any(self.formulas.tier_first):
            changed |= {"external_kv_transfer": misses, "external_hits": misses}
            changed |= {"nixl_bytes": self._blocks(misses)} if self._same_blocks else {}
        return ServerExpectation(**changed)

    @property
    def _same_blocks(self) -> bool:
        return self.server.role is Role.PREFILL or self.formulas.prefill_block_size == self.server.block_size

    def _blocks(self, tokens: Bounds) -> Bounds:
        size, block = self.formulas.block_size, self.formulas.block_bytes
        return Bounds(tokens.low // size * block, tokens.high // size * block)
