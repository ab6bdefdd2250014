"""Which uses have which names, in little memory: a run has millions of such pairs, and most names have one use."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from harness.oracle.blocks import Block, Chain
from harness.oracle.packed import packed

Numbers = np.ndarray[Any, np.dtype[np.int32]]


class Users:
    """The uses of each name. ``chains``: the names of each use. Names are small numbers, each of a whole prefix."""

    def __init__(self, chains: Iterable[Chain]) -> None:
        sizes, every = array("i"), array("i")
        for one in chains:
            sizes.append(len(one))
            every.extend(one)
        lengths, names = np.array(sizes, np.int32), np.array(every, np.int32)
        # All that is counted here has 32 bits, and is freed as soon as it was used: this may be most of a run's memory.
        del every
        depths = np.zeros(int(names.max(initial=-1)) + 1, np.int32)
        depths[names] = _counted_anew(lengths)
        self._depths: array[int] = packed("i", depths)
        ends = np.cumsum(np.bincount(names), dtype=np.int32)
        self.names = len(ends)
        """All names are smaller than this number."""
        self.starts: array[int] = packed("i", np.concatenate(([0], ends), dtype=np.int32))
        """Where the uses of each name begin in ``uses``; and the end."""
        del depths, ends
        by_name = np.argsort(names, kind="stable").astype(np.int32)
        del names
        uses = np.repeat(np.arange(len(sizes), dtype=np.int32), lengths)
        self.uses: array[int] = packed("i", uses[by_name])
        """The uses of the first name, rising, then those of the second, ..."""

    @property
    def _starts(self) -> Numbers:
        return np.frombuffer(self.starts, np.int32)

    @property
    def _counts(self) -> Numbers:
        return np.diff(self._starts)

    def of(self, name: Block) -> "array[int]":
        """Indices of the uses that have the name, rising."""
        return self.uses[self.starts[name] : self.starts[name + 1]] if 0 <= name < self.names else array("i")

    def up_to(self, name: Block, end: int) -> int:
        """How many of the uses before the use with index ``end`` have the name."""
        if not 0 <= name < self.names:
            return 0
        start = self.starts[name]
        return bisect_left(self.uses, end, start, self.starts[name + 1]) - start

    def depth(self, name: Block) -> int:
        """The place of the name in its chains, from 0; it is the same in all of them."""
        return self._depths[name]

    def first(self, name: Block) -> int:
        """The index of the first use that has the name, which some use has."""
        return self.uses[self.starts[name]]

    @property
    def used(self) -> int:
        """How many names have a use."""
        return int(np.count_nonzero(self._counts))

    def of_several(self) -> Iterator[Block]:
        """The names that several uses have."""
        found: list[Block] = np.flatnonzero(self._counts > 1).tolist()
        return iter(found)

    def sole(self, uses: int) -> list[int]:
        """For each of ``uses`` uses, how many names no other use has."""
        starts = self._starts[:-1][self._counts == 1]
        owners = np.frombuffer(self.uses, np.int32)[starts] if len(starts) else np.empty(0, np.int32)
        counts: list[int] = np.bincount(owners, minlength=uses).tolist()
        return counts

    def least(self, values: Sequence[float]) -> "array[float]":
        """For each name, the smallest of its uses' ``values``; infinite if it has no use."""
        smallest = np.full(self.names, np.inf)
        used = np.flatnonzero(self._counts)
        if len(used):
            of_uses = np.asarray(values, float)[np.frombuffer(self.uses, np.int32)]
            smallest[used] = np.minimum.reduceat(of_uses, self._starts[used])
        return packed("d", smallest)


def _counted_anew(lengths: Numbers) -> Numbers:
    """0, 1, 2, ... for each chain of these lengths."""
    firsts = np.cumsum(lengths, dtype=np.int32) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int32) - np.repeat(firsts, lengths)
