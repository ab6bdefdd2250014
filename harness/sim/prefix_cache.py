"""Block hashes, and the longest prefix that the pool holds.

Semantics of vLLM 0.32.0's ``kv_cache_utils.py`` and ``FullAttentionManager``.

A block's hash covers its tokens, all blocks before it and, through the first one, the request's salt. So a hit is
always a prefix, in whole blocks, and a salted request finds only what was stored under its own salt. At least one
token is left to compute: a prompt of exactly k blocks can hit at most k - 1 of them.
"""

from collections.abc import Sequence

from harness.sim.blocks import BlockPool
from harness.sim.language import hash_text, mix

_ROOT = 0x5851F42D4C957F2D


def root_hash(salt: str | None) -> int:
    """What the first block chains on."""
    return _ROOT if salt is None else mix(_ROOT ^ hash_text(salt))


def extend_hashes(hashes: list[int], tokens: Sequence[int], block_size: int, root: int) -> None:
    """Append the hashes of blocks that have become full since last time."""
    for start in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        # A tuple of integers hashes alike in every process; only strings are randomized.
        hashes.append(hash((parent, *tokens[start : start + block_size])))


def longest_hit(pool: BlockPool, hashes: Sequence[int], num_tokens: int, block_size: int) -> list[int]:
    """The blocks of the longest cached prefix of ``num_tokens`` tokens."""
    found: list[int] = []
    for block_hash in hashes[: (num_tokens - 1) // block_size]:
        block = pool.find(block_hash)
        if block is None:
            break
        found.append(block)
    return found
