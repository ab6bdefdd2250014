"""Names for KV blocks, as a prefix cache identifies them.

vLLM caches a full block under a hash of its own tokens and of everything before them, including the ``cache_salt``.
So a name stands for a whole prefix: blocks with equal names end equal prefixes, and a request that used a block also
used all blocks before it. A name is a number that is given when its prefix first appears, so names never collide.
"""

from dataclasses import dataclass, field
from itertools import count

Block = int
"""The name of a block, and of the prefix that ends with the block."""
Chain = tuple[Block, ...]
"""The full blocks of a token sequence, first to last."""

_Parent = Block | str | None


@dataclass(slots=True)
class Names:
    """Gives names to blocks of one size."""

    block_size: int
    _names: dict[tuple[_Parent, tuple[int, ...]], Block] = field(default_factory=dict)
    _next: "count[int]" = field(default_factory=count)

    def chain(self, salt: str | None, tokens: tuple[int, ...]) -> Chain:
        """The names of the full blocks of ``tokens``."""
        chain: list[Block] = []
        parent: _Parent = salt
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            key = (parent, tokens[start : start + self.block_size])
            if key not in self._names:
                self._names[key] = next(self._next)
            parent = self._names[key]
            chain.append(parent)
        return tuple(chain)
