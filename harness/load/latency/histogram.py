"""Latencies as an HDR histogram: counts in bins whose width is a thousandth of their value. Pure.

Histograms of several workers or runs are merged by adding their counts. So the merged histogram is the one that a
single worker would have recorded, to the last count, and its percentiles are those of all latencies together; merged
percentiles would not be. The encoded form is that of HdrHistogram (V2, compressed, base 64), which its tools in other
languages read too. Values are microseconds, from 1 µs to an hour; others count as the nearest of these.
"""

from collections.abc import Iterable
from typing import Self, cast

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

_LEAST, _MOST = 1, 3_600_000_000
_FIGURES = 3


class Histogram:
    """A distribution of latencies that merges exactly."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(_LEAST, _MOST, _FIGURES)
        self.add(seconds)

    def add(self, seconds: Iterable[float]) -> None:
        """Record latencies, in seconds."""
        measured = np.fromiter(seconds, np.float64)
        micros = np.clip(np.round(measured * 1e6), _LEAST, _MOST).astype(np.int64)
        # Recording is slow value by value; values of the same bin are recorded together.
        values, counts = np.unique(_bins(micros), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts.record_value(value, count)

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram."""
        self._counts.add(other._counts)

    @property
    def total(self) -> int:
        """How many latencies were recorded."""
        return cast("int", self._counts.get_total_count())

    def percentile(self, percentile: float) -> float:
        """The smallest value that so many percent do not exceed: milliseconds, the upper end of its bin.

        So many percent are rounded to a whole number of latencies.
        """
        return cast("int", self._counts.get_value_at_percentile(percentile)) / 1000

    def encoded(self) -> str:
        """The histogram as text."""
        return cast("bytes", self._counts.encode()).decode()

    @classmethod
    def decoded(cls, text: str) -> Self:
        """The histogram of :meth:`encoded`."""
        found = cls()
        found._counts.decode_and_add(text.encode())
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.encoded() == other.encoded()

    def __hash__(self) -> int:
        raise TypeError("a histogram changes, and has no hash")


def _bins(micros: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The lower end of each value's bin: its first 11 bits, which tell a thousandth apart."""
    shift = np.maximum(0, np.frexp(micros.astype(np.float64))[1] - 11)
    lower: npt.NDArray[np.int64] = (micros >> shift) << shift
    return lower
