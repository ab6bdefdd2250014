"""The slope of a row of measurements, with a confidence interval: Theil and Sen. Pure.

The estimate is the median of the slopes between all pairs of points, and its interval follows from the distribution of
Kendall's statistic (Sen 1968): neither asks for a normal distribution, and a few odd points do not matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 8
"""Points below which no interval at this confidence exists."""
CONFIDENT = 3.29
"""Standard deviations; 99.9 %: a soak tests some twelve rows of measurements at once."""


@dataclass(frozen=True, slots=True)
class Slope:
    """What a measurement grows by for each unit of ``x``."""

    estimate: float
    low: float
    high: float

    def surely_above(self, bound: float) -> bool:
        """Whether the whole interval lies above the bound."""
        return self.low > bound


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """The slope of ``y`` over rising ``x``; with too few points, an interval without limits."""
    first, second = np.triu_indices(len(x), k=1)
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    slopes = np.sort((ys[second] - ys[first]) / (xs[second] - xs[first]))
    if len(x) < FEWEST:
        return Slope(float(np.median(slopes)) if len(slopes) else math.nan, -math.inf, math.inf)
    number = len(x)
    reach = CONFIDENT * math.sqrt(number * (number - 1) * (2 * number + 5) / 18)
    low = max(0, math.floor((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))
