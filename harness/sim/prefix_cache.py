"""Block hashes and prefix cache lookups, as in vLLM 0.32.0's ``kv_cache_utils.py`` and ``FullAttentionManager``.

A block's hash covers its tokens, all blocks before it and, through the first block, the request's salt. So a hit is
always a prefix of whole blocks, and a salted request hits only blocks with the same salt. At least one token is left to
compute: a prompt of exactly k blocks hits at most k - 1 of them.
"""

from collections.abc import Sequence

from harness.sim.blocks import BlockPool
from harness.sim.language import hash_text, mix

_ROOT = 0x5851F42D4C957F2D


def root_hash(salt: str | None) -> int:
    """Return the hash that the first block's hash is chained to."""
    return _ROOT if salt is None else mix(_ROOT ^ hash_text(salt))


def extend_hashes(hashes: list[int], tokens: Sequence[int], block_size: int, root: int) -> None:
    """Append the hashes of the blocks that have become full since the last call."""
    for start in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        parent = hashes[-1] if hashes else root
        # Python hashes a tuple of integers alike in every process; it randomises only strings.
        hashes.append(hash((parent, *tokens[start : start + block_size])))


def longest_hit(pool: BlockPool, hashes: Sequence[int], num_tokens: int, block_size: int) -> list[int]:
    """Return the blocks of the longest cached prefix of a prompt of ``num_tokens`` tokens."""
    found: list[int] = []
    for block_hash in hashes[: (num_tokens - 1) // block_size]:
        block = pool.find(block_hash)
        if block is None:
            break
        found.append(block)
    return found
