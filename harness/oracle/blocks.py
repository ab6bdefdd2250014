"""Names for blocks, as a prefix cache knows them.

A whole block is cached under a hash of its own tokens and of everything before them, the ``cache_salt`` included. So
a name stands for a whole prefix: equal names, equal prefixes; and whoever has a block has asked for all before it.
Here a name is a number, given out as prefixes come up: no hash, no collision.
"""

from dataclasses import dataclass, field
from itertools import count

Block = int
"""The name of a block: of the prefix that ends with it."""
Chain = tuple[Block, ...]
"""The whole blocks of a sequence of tokens, first to last."""

_Parent = Block | str | None


@dataclass(slots=True)
class Names:
    """Names of blocks of one size."""

    block_size: int
    _given: dict[tuple[_Parent, tuple[int, ...]], Block] = field(default_factory=dict)
    _next: "count[int]" = field(default_factory=count)

    def chain(self, salt: str | None, tokens: tuple[int, ...]) -> Chain:
        """The names of the whole blocks of ``tokens``."""
        names: list[Block] = []
        parent: _Parent = salt
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            key = (parent, tokens[start : start + self.block_size])
            if key not in self._given:
                self._given[key] = next(self._next)
            parent = self._given[key]
            names.append(parent)
        return tuple(names)
