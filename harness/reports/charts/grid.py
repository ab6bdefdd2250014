"""Counts, rates and quantiles over equal slices of time. Pure.

All requests are counted, however many there are: a chart gets at most ``MOST`` slices.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""One-dimensional."""
Whole = npt.NDArray[np.int64]
"""The same of whole numbers."""

MOST = 200
"""More slices would be narrower than a few pixels."""
_LEAST_STEP = 1e-4
"""Charts have times to a tenth of a millisecond: narrower slices would lie on each other."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Slices of ``step`` seconds from 0 on; slice k has the times from ``k * step`` up to, not including, the next."""

    step: float
    slices: int

    @classmethod
    def over(cls, end: float, most: int = MOST) -> Self:
        """Slices up to and including ``end``, whose width is 1, 2 or 5 times a power of ten."""
        step = _round_step(max(end / most, _LEAST_STEP))
        slices = math.floor(end / step) + 1
        # A width that is no binary fraction may leave the end outside of the last slice by a rounding error.
        return cls(step, slices)

    @property
    def begins(self) -> Floats:
        """When each slice begins."""
        begins: Floats = (np.arange(self.slices) * self.step).astype(np.float64)
        return begins

    @property
    def edges(self) -> Floats:
        """When each slice begins, and the last one ends."""
        return np.append(self.begins, self.slices * self.step)

    def places(self, times: Floats) -> Whole:
        """The slice of each time; times outside belong to the first or last one."""
        found: Whole = np.searchsorted(self.begins, times, side="right") - 1
        return np.clip(found, 0, self.slices - 1)

    def count(self, times: Floats) -> Whole:
        """How many of the times each slice has."""
        counted: Whole = np.bincount(self.places(times), minlength=self.slices)
        return counted

    def at_work(self, begins: Floats, ends: Floats) -> Whole:
        """How many intervals, each from its begin up to but not including its end, contain each slice's beginning."""
        begun = np.searchsorted(np.sort(begins), self.begins, side="right")
        # An interval that ends before it begins, by a rounding error, contains nothing.
        over = np.searchsorted(np.sort(np.maximum(begins, ends)), self.begins, side="right")
        there: Whole = begun - over
        return there

    def quantiles(self, times: Floats, values: Floats, wanted: tuple[float, ...]) -> list[tuple[int, int, Floats]]:
        """For each slice that has any of the times: its number, how many, and the quantiles of their values."""
        places = self.places(times)
        order = np.argsort(places, kind="stable")
        slices, starts = np.unique(places[order], return_index=True)
        parts = np.split(values[order], starts[1:])
        return [
            (int(place), len(part), np.asarray(np.quantile(part, wanted), np.float64))
            for place, part in zip(slices, parts, strict=True)
            if len(part)
        ]


def _round_step(least: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(step for factor in (1, 2, 5, 10) if (step := factor * power) >= least * (1 - 1e-9))
