"""Names for KV blocks, as a prefix cache identifies them.

vLLM caches a full block under a hash of its own tokens and of everything before them, including the ``cache_salt``.
So a name stands for a whole prefix: blocks with equal names end equal prefixes, and a request that used a block also
used all blocks before it. A name is a number that is given when its prefix first appears: 0, 1, 2, ...

Prefixes are told apart by digests of 128 bits, as vLLM does with 256: for a million blocks, the probability that two of
them have the same digest is below 1e-26.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from harness.oracle.digests import Digests

Block = int
"""The name of a block, and of the prefix that ends with the block."""
Chain = Sequence[Block]
"""The full blocks of a token sequence, first to last; never changed."""

_DIGEST = 16
"""Bytes."""


@dataclass(slots=True)
class Names:
    """Gives names to blocks of one size."""

    block_size: int
    _names: Digests = field(default_factory=Digests)
    _last: tuple[str | None, bytes, list[bytes], "array[Block]"] = field(
        default_factory=lambda: (None, b"", [], array("i"))
    )
    """Salt, content, digests and names of the last blocks. The next ones are often the same, or the same and more."""

    def chain(self, salt: str | None, tokens: tuple[int, ...]) -> Chain:
        """The names of the full blocks of ``tokens``; the last chain itself if it is the same."""
        size = array("q").itemsize * self.block_size
        whole = array("q", tokens[: len(tokens) // self.block_size * self.block_size]).tobytes()
        last_salt, last, digests, chain = self._last
        if (salt, whole) == (last_salt, last):
            return chain
        if salt == last_salt and whole.startswith(last):
            digests, chain = [*digests], chain[:]
        else:
            digests, chain = [], array("i")
        digest = digests[-1] if digests else _root(salt)
        for start in range(len(chain) * size, len(whole), size):
            digest = blake2b(digest + whole[start : start + size], digest_size=_DIGEST).digest()
            digests.append(digest)
            chain.append(self._names.number(digest))
        self._last = salt, whole, digests, chain
        return chain

    def forget(self) -> None:
        """Free the tables: no more names will be asked for."""
        self._names = Digests()


def _root(salt: str | None) -> bytes:
    return b"" if salt is None else blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
