"""The block pool and the KV memory behind it. Semantics of vLLM 0.32.0's ``v1/core/block_pool.py``.

Rule 1. Block 0 is the null block: never given out, never free.

Rule 2. The free queue is in eviction order. Freed blocks that are in the prefix cache join its tail (least recently
used first out); freed blocks without a hash go to its *head*, to be used again at once.

Rule 3. A request's blocks are freed last block first, so that of one request's cached blocks the tail is evicted first.

Rule 4. A block stays in the prefix cache while it is free, until it is given out again. A hit takes it out of the
queue. Two blocks may carry the same hash: the older one is found, either can go.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class BlockPool:
    """Which blocks are free, held, and cached; knows nothing of their contents."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._references = [0] * num_blocks
        self._hash_of: list[int | None] = [None] * num_blocks
        self._cached: dict[int, dict[int, None]] = {}

    @property
    def num_free(self) -> int:
        """Blocks that can be given out, cached ones included."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of the usable blocks that are held, 0 to 1."""
        return 1.0 - len(self._free) / (self.num_blocks - 1)

    def free_order(self) -> list[int]:
        """Free blocks, the next to be given out first."""
        return list(self._free)

    def take(self, count: int) -> list[int]:
        """Give out the blocks at the head of the queue, evicting what they cache. There must be enough."""
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self.evict(block)
            self._references[block] = 1
        return taken

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold blocks that a lookup found."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a request's blocks, given in the order of its tokens (rules 2 and 3)."""
        forgotten = []
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._hash_of[block] is None:
                forgotten.append(block)
            else:
                self._free[block] = None
        for block in reversed(forgotten):
            self._free[block] = None
            self._free.move_to_end(block, last=False)

    def num_evictable(self, blocks: Iterable[int]) -> int:
        """How many of these are free at the moment: touching them costs that many."""
        return sum(not self._references[block] for block in blocks)

    def cache(self, block: int, block_hash: int) -> None:
        """Let lookups find a full block."""
        if self._hash_of[block] is None:
            self._hash_of[block] = block_hash
            self._cached.setdefault(block_hash, {})[block] = None

    def is_cached(self, block: int) -> bool:
        """Whether a block carries a hash."""
        return self._hash_of[block] is not None

    def find(self, block_hash: int) -> int | None:
        """A block with these contents."""
        blocks = self._cached.get(block_hash)
        return next(iter(blocks)) if blocks else None

    def evict(self, block: int) -> None:
        """Forget what a block caches; its contents stay where they are."""
        block_hash = self._hash_of[block]
        if block_hash is None:
            return
        self._hash_of[block] = None
        holders = self._cached[block_hash]
        del holders[block]
        if not holders:
            del self._cached[block_hash]

    def reset(self) -> bool:
        """Empty the prefix cache; refused while any block is held."""
        if self.num_free != self.num_blocks - 1:
            return False
        self._cached.clear()
        self._hash_of = [None] * self.num_blocks
        return True


@dataclass(frozen=True, slots=True)
class Page:
    """A copy of one block's contents on its way: to another server, or to the offload tier."""

    rows: tuple[int, ...]
    tainted: bool = False
    """Whether these are not the KV that their place in the prompt should have (ground truth; no engine looks)."""
    drift: float = 0.0


class KVMemory:
    """The contents of every block: one number a token slot (language.py). Nothing is cleared when a block is freed."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._rows: list[list[int]] = [[0] * block_size for _ in range(num_blocks)]
        self._drift: dict[int, float] = {}
        self.tainted: set[int] = set()
        self.foreign_writes = 0
        """Writes into a block by somebody who does not own it: whoever summed it up must do so again."""

    def read(self, block: int) -> Page:
        """Copy a block as it is now, whoever owns it."""
        return Page(tuple(self._rows[block]), block in self.tainted, self._drift.get(block, 0.0))

    def write(self, block: int, page: Page, *, owner: bool = True) -> None:
        """Overwrite a whole block."""
        self._rows[block][:] = page.rows
        self._mark(block, tainted=page.tainted, drift=page.drift)
        self.foreign_writes += not owner

    def write_rows(self, block: int, offset: int, rows: Sequence[int]) -> None:
        """Overwrite some token slots; the first slot makes it a new block."""
        if offset == 0:
            self._mark(block, tainted=False, drift=0.0)
        self._rows[block][offset : offset + len(rows)] = rows

    def total(self, blocks: Sequence[int], tokens: int) -> int:
        """Sum over the first ``tokens`` slots of a block table, not reduced to 64 bits."""
        whole, rest = divmod(tokens, self.block_size)
        total = sum(sum(self._rows[block]) for block in blocks[:whole])
        return total + sum(self._rows[blocks[whole]][:rest]) if rest else total

    def drift(self, blocks: Sequence[int]) -> float:
        """Mean strain over a block table."""
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
