"""Points in a plane with weights, summed over a quadrant without looking at each point.

The points are in the order of y. Of blocks of 32, 128, 512, ... neighbours in this order, each has its points in the
order of x as well, with running sums of their weights. The points up to some y are a few whole blocks, three of each
size at most (but for the largest), and fewer than 32 others. So a sum takes about (log n)^2 steps, and the blocks
n log n places.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.oracle.packed import packed

_SMALLEST = 32
"""Points of the smallest blocks. Smaller ones would take more memory than they save time."""
_LARGER = 4
"""How many times as many points the next larger blocks have. With 2, sums would be little faster, for twice the memory.
"""

Numbers = np.ndarray[Any, np.dtype[Any]]


class Points:
    """Points that stay the same. ``weights``: by their x and y."""

    def __init__(self, weights: Mapping[tuple[float, float], int]) -> None:
        xs, ys = (np.fromiter((point[axis] for point in weights), float, len(weights)) for axis in (0, 1))
        order = np.argsort(ys, kind="stable")
        own = np.fromiter(weights.values(), np.int32, len(weights))[order]
        # Places among all x instead of x itself: half the memory of each block.
        every = np.unique(xs)
        places = np.searchsorted(every, xs[order]).astype(np.int32)
        self._every_x, self._ys = packed("d", every), packed("d", ys[order])
        self._xs: array[int] = packed("i", places)
        self._weights: array[int] = packed("i", own)
        self._blocks = [*_blocks(places, own)]

    def total(self, least_x: float, most_y: float) -> int:
        """The weights of the points with x >= ``least_x`` and y <= ``most_y``."""
        end, least = bisect_right(self._ys, most_y), bisect_left(self._every_x, least_x)
        start = total = 0
        for size, xs, sums in self._blocks:
            while start + size <= end:
                after = start + size
                first = bisect_left(xs, least, start, after)
                total += sums[first] if first < after else 0
                start = after
        rest = range(start, end)
        rest_weight: int = sum([self._weights[index] for index in rest if self._xs[index] >= least])
        return total + rest_weight


def _blocks(xs: Numbers, weights: Numbers) -> Iterator[tuple[int, "array[int]", "array[int]"]]:
    """For each size, the largest first: the points' x, and the weights from each point to its block's end."""
    size = _SMALLEST
    while size * _LARGER <= len(xs):
        size *= _LARGER
    while _SMALLEST <= size <= len(xs):
        whole = len(xs) // size * size
        by_block, own = xs[:whole].reshape(-1, size), weights[:whole].reshape(-1, size)
        order = np.argsort(by_block, axis=1, kind="stable")
        sums = np.take_along_axis(own, order, 1)[:, ::-1].cumsum(axis=1, dtype=np.int32)[:, ::-1]
        ordered = np.take_along_axis(by_block, order, 1)
        yield size, packed("i", ordered.ravel()), packed("i", sums.ravel())
        size //= _LARGER
