"""A table of digests in little memory: which number each was given.

A run has a million blocks. A dictionary of their digests takes 140 MB, most of it for small objects whose memory is not
given back. Here all but the newest digests lie in sorted columns: 20 bytes each.
"""

from array import array
from bisect import bisect_left
from struct import Struct

import numpy as np

from harness.oracle.packed import packed

_NEWEST = 1 << 16
"""Digests that are sorted in at once."""
_HALVES = Struct("=QQ")


class Digests:
    """Digests of 16 bytes, numbered in the order in which they first appear: 0, 1, 2, ..."""

    def __init__(self, newest: int = _NEWEST) -> None:
        self._most_new = newest
        self._new: dict[bytes, int] = {}
        self._firsts, self._rests, self._numbers = array("Q"), array("Q"), array("i")
        """The halves of each digest, sorted by the first one; and its number."""

    def number(self, digest: bytes) -> int:
        """The number of the digest, a new one if it has none yet."""
        known = self._new.get(digest)
        known = self._sorted_in(digest) if known is None else known
        if known is not None:
            return known
        number = self._new[digest] = len(self._numbers) + len(self._new)
        if len(self._new) >= self._most_new:
            self._sort_in()
        return number

    def _sorted_in(self, digest: bytes) -> int | None:
        first, rest = _HALVES.unpack(digest)
        place = bisect_left(self._firsts, first)
        while place < len(self._firsts) and self._firsts[place] == first:
            if self._rests[place] == rest:
                return self._numbers[place]
            place += 1
        return None

    def _sort_in(self) -> None:
        new = np.frombuffer(b"".join(self._new), np.uint64).reshape(-1, 2)
        numbers = np.arange(len(self._numbers), len(self._numbers) + len(new), dtype=np.int32)
        firsts = np.concatenate((np.array(self._firsts, np.uint64), new[:, 0]))
        order = np.argsort(firsts, kind="stable")
        self._firsts = packed("Q", firsts[order])
        self._rests = packed("Q", np.concatenate((np.array(self._rests, np.uint64), new[:, 1]))[order])
        self._numbers = packed("i", np.concatenate((np.array(self._numbers, np.int32), numbers))[order])
        self._new.clear()
