"""The caches of one server, followed request by request: a prefix cache, an offload tier, and what vLLM counts of them.

Much quicker than the simulated pair, which also computes tokens. Blocks are known by the hashes of their prefixes.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from harness.sim.blocks import BlockPool

BLOCK = 16
"""Tokens per block, and per chunk of the tier."""
BLOCK_BYTES = 4096


@dataclass
class Caches:
    """One server. ``num_blocks``: in its pool, including the null block; ``chunks``: places in its offload tier."""

    num_blocks: int
    chunks: int
    counted: Counter[str] = field(default_factory=Counter)
    """The growth of each counter, named as in :mod:`harness.observe.counters`."""
    pool: BlockPool = field(init=False)
    _tier: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _held: dict[int, tuple[list[int], Sequence[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.num_blocks)

    def admit(self, number: int, hashes: Sequence[int], tokens: int, output: int, *, pulls: bool) -> None:
        """A request with ``tokens`` prompt tokens takes its blocks; ``hashes``: of the full blocks of its prompt."""
        blocks = self._found(hashes[: (tokens - 1) // BLOCK])
        local = len(blocks) * BLOCK
        loaded = 0 if pulls else self._loads(hashes, local)
        self._count(tokens, local, tokens - local if pulls else loaded, pulls=pulls)
        self.counted["generation_tokens"] += output
        self.counted["offload_load_bytes"] += loaded // BLOCK * BLOCK_BYTES
        self.pool.touch(blocks)
        blocks += self.pool.take(-(-(tokens + output - 1) // BLOCK) - len(blocks))
        for block, name in zip(blocks, hashes, strict=False):
            self.pool.cache(block, name)
        self._store(hashes)
        self._held[number] = blocks, hashes

    def release(self, number: int) -> None:
        """The request's blocks are free, and its chunks the tier's youngest."""
        blocks, hashes = self._held.pop(number)
        self.pool.release(blocks)
        for name in reversed(hashes):
            if name in self._tier:
                self._tier.move_to_end(name)

    def _found(self, hashes: Sequence[int]) -> list[int]:
        blocks = []
        for name in hashes:
            if (block := self.pool.find(name)) is None:
                break
            blocks.append(block)
        return blocks

    def _loads(self, hashes: Sequence[int], local: int) -> int:
        end = local // BLOCK
        while end < len(hashes) and hashes[end] in self._tier:
            end += 1
        return end * BLOCK - local

    def _count(self, tokens: int, local: int, brought: int, *, pulls: bool) -> None:
        grown = {
            "prompt_tokens": tokens,
            "prefix_queries": tokens,
            "prefix_hits": local,
            "local_cache_hit": local,
            "external_kv_transfer": brought,
            "external_hits": brought,
            "external_queries": tokens - local,
            "local_compute": tokens - local - brought,
        }
        if pulls:
            grown |= {"nixl_bytes": (-(-tokens // BLOCK) - local // BLOCK) * BLOCK_BYTES, "nixl_transfers": 1}
        self.counted.update(grown)

    def _store(self, hashes: Sequence[int]) -> None:
        new = [name for name in hashes if name not in self._tier]
        excess = max(len(self._tier) + len(new) - self.chunks, 0)
        offered = set(hashes)
        for name in [*islice((name for name in self._tier if name not in offered), excess)]:
            del self._tier[name]
        self._tier.update(dict.fromkeys(new))
        self.counted["offload_store_bytes"] += len(new) * BLOCK_BYTES
