"""The block pool and the KV memory behind it, as in vLLM 0.32.0's ``v1/core/block_pool.py``.

Rule 1. Block 0 is the null block: it is never allocated and never free.

Rule 2. The free queue is in eviction order. A freed block that has a hash joins the tail of the queue, so that the
least recently used block is evicted first. A freed block without a hash joins the *head*, to be reused at once.

Rule 3. A request's blocks are freed last block first, so that the end of its prompt is evicted before the beginning.

Rule 4. A free block stays in the prefix cache until it is allocated again. A hit takes the block out of the free queue.
Two blocks may have the same hash: a lookup finds the older one, and either may be evicted first.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class BlockPool:
    """Tracks which blocks are free, held and cached, but not what they contain."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._references = [0] * num_blocks
        self._hash_of: list[int | None] = [None] * num_blocks
        self._cached: dict[int, dict[int, None]] = {}

    @property
    def num_free(self) -> int:
        """Number of blocks that can be allocated, cached blocks included."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of the usable blocks that are held, 0 to 1."""
        return 1.0 - len(self._free) / (self.num_blocks - 1)

    def free_order(self) -> list[int]:
        """Free blocks in the order in which they will be allocated."""
        return list(self._free)

    def take(self, count: int) -> list[int]:
        """Allocate the first ``count`` blocks of the free queue, at most `num_free`, and evict their hashes."""
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self.evict(block)
            self._references[block] = 1
        return taken

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold cached blocks that a lookup found."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Free a request's blocks, given in the order of its tokens (rules 2 and 3)."""
        uncached = []
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._hash_of[block] is None:
                uncached.append(block)
            else:
                self._free[block] = None
        for block in reversed(uncached):
            self._free[block] = None
            self._free.move_to_end(block, last=False)

    def num_evictable(self, blocks: Iterable[int]) -> int:
        """Count the free blocks among these; a lookup that holds them leaves as many fewer to allocate."""
        return sum(not self._references[block] for block in blocks)

    def cache(self, block: int, block_hash: int) -> None:
        """Give a full block its hash, so that lookups find it."""
        if self._hash_of[block] is None:
            self._hash_of[block] = block_hash
            self._cached.setdefault(block_hash, {})[block] = None

    def is_cached(self, block: int) -> bool:
        """Whether a block has a hash."""
        return self._hash_of[block] is not None

    def find(self, block_hash: int) -> int | None:
        """Return the oldest block with this hash, or None."""
        blocks = self._cached.get(block_hash)
        return next(iter(blocks)) if blocks else None

    def evict(self, block: int) -> None:
        """Remove a block's hash; its contents stay as they are."""
        block_hash = self._hash_of[block]
        if block_hash is None:
            return
        self._hash_of[block] = None
        holders = self._cached[block_hash]
        del holders[block]
        if not holders:
            del self._cached[block_hash]

    def reset(self) -> bool:
        """Empty the prefix cache; return False, and do nothing, while any block is held."""
        if self.num_free != self.num_blocks - 1:
            return False
        self._cached.clear()
        self._hash_of = [None] * self.num_blocks
        return True


@dataclass(frozen=True, slots=True)
class Page:
    """A copy of one block's contents, made for a KV transfer or for the offload tier."""

    rows: tuple[int, ...]
    tainted: bool = False
    """Ground truth, which no engine reads: whether this is not the KV that belongs at its place in the prompt."""
    drift: float = 0.0
    """Nats by which logits move because of this page (`harness.sim.language.Distribution`)."""


class KVMemory:
    """The contents of every block: one number per token slot (language.py). Freeing a block clears nothing."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._rows: list[list[int]] = [[0] * block_size for _ in range(num_blocks)]
        self._drift: dict[int, float] = {}
        self.tainted: set[int] = set()
        self.foreign_writes = 0
        """How often a request overwrote a block of another; sums that sequences read before are then stale."""

    def read(self, block: int) -> Page:
        """Copy a block's present contents."""
        return Page(tuple(self._rows[block]), block in self.tainted, self._drift.get(block, 0.0))

    def write(self, block: int, page: Page, *, owner: bool = True) -> None:
        """Overwrite a whole block."""
        self._rows[block][:] = page.rows
        self._mark(block, tainted=page.tainted, drift=page.drift)
        self.foreign_writes += not owner

    def write_rows(self, block: int, offset: int, rows: Sequence[int]) -> None:
        """Overwrite some token slots; writing the first slot removes the marks of the block's earlier contents."""
        if offset == 0:
            self._mark(block, tainted=False, drift=0.0)
        self._rows[block][offset : offset + len(rows)] = rows

    def total(self, blocks: Sequence[int], tokens: int) -> int:
        """Sum the first ``tokens`` slots of a block table, without reducing the sum to 64 bits."""
        whole, rest = divmod(tokens, self.block_size)
        total = sum(sum(self._rows[block]) for block in blocks[:whole])
        return total + sum(self._rows[blocks[whole]][:rest]) if rest else total

    def drift(self, blocks: Sequence[int]) -> float:
        """Mean drift over the blocks, in nats."""
        if not self._drift or not blocks:
            return 0.0
        return sum(self._drift.get(block, 0.0) for block in blocks) / len(blocks)

    def _mark(self, block: int, *, tainted: bool, drift: float) -> None:
        if tainted:
            self.tainted.add(block)
        else:
            self.tainted.discard(block)
        if drift:
            self._drift[block] = drift
        else:
            self._drift.pop(block, None)
