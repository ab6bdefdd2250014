"""Percentiles of latencies while they come in, at a fraction of a microsecond for each.

Bins are 2 % wide, from 10 µs to a day. ``harness.load.latency.Histogram`` is ten times as exact, but takes a
microsecond for each value and milliseconds for a percentile, which would be missing where the load is sent.
"""

from math import exp, log

_WIDTH = 0.02
_LEAST = 1e-5
_BINS = int(log(86_400 / _LEAST) / _WIDTH) + 2
_OFFSET = -log(_LEAST) / _WIDTH


class LatencyBins:
    """Counts of latencies. One thread may add while others read."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count a latency; those beyond the bins count in the first or the last one."""
        place = int(log(seconds) / _WIDTH + _OFFSET) if seconds > _LEAST else 0
        self._counts[place if place < _BINS else -1] += 1
        self.total += 1

    def percentile(self, percent: float) -> float | None:
        """The middle of the bin below which so many percent lie, in seconds; None if there is no latency."""
        wanted, seen = self.total * percent / 100, 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return exp((place + 0.5 - _OFFSET) * _WIDTH)
        return None
