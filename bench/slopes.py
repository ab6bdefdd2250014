"""By how much a measurement grows for each unit of ``x``, with a confidence interval. Pure.

``slope`` is for what varies, such as memory: Theil and Sen. The estimate is the median of the slopes between all pairs
of points of one row, and its interval follows from the distribution of Kendall's statistic (Sen 1968). Neither asks for
a normal distribution, and a few odd points do not matter. Points of different rows are not compared, so that each row
has a level of its own (Hirsch, Slack and Smith 1982). Memory moves in steps, so that neighbouring points are alike and
say less than as many independent ones: the more they are alike, the wider the interval (Hamed and Rao 1998). They are
still called growing too often: one row of 40, not of 2,000, if each point has eight tenths of the one before.

``rate`` is for what is counted and, once leaked, never comes back, such as KV blocks: the growth of what is held at a
point and at all later ones. Its interval is that of a Poisson distribution (Garwood 1936), wider if several leak at a
time. If nothing grew, it says how much may have leaked unseen, which a slope's interval does not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENT = 3.29
"""Standard deviations; 99.9 %: a soak tests some twelve rows of measurements at once."""
_TAIL = 0.0005
_HALVINGS = 80

Row = tuple[Sequence[float], Sequence[float]]
"""Rising ``x``, and ``y`` at each of them."""
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slope:
    """What a measurement grows by for each unit of ``x``."""

    estimate: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there were enough points for an interval."""
        return math.isfinite(self.high)

    def surely_above(self, bound: float) -> bool:
        """Whether the whole interval lies above the bound."""
        return self.low > bound


UNKNOWN = Slope(math.nan, -math.inf, math.inf)


def slope(rows: Sequence[Row]) -> Slope:
    """The common slope of the rows; with too few points, an interval without limits."""
    slopes = np.sort(np.concatenate([_slopes(*row) for row in rows])) if rows else np.empty(0)
    if not len(slopes):
        return UNKNOWN
    estimate = float(np.median(slopes))
    reach = CONFIDENT * math.sqrt(sum(_variance(row, estimate) for row in rows))
    if reach >= len(slopes):
        return Slope(estimate, -math.inf, math.inf)
    low, high = math.floor((len(slopes) - reach) / 2), math.ceil((len(slopes) + reach) / 2)
    return Slope(estimate, float(slopes[low]), float(slopes[min(high, len(slopes) - 1)]))


def _slopes(x: Sequence[float], y: Sequence[float]) -> _Floats:
    first, second = np.triu_indices(len(x), k=1)
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    found: _Floats = (ys[second] - ys[first]) / (xs[second] - xs[first])
    return found


def _variance(row: Row, estimate: float) -> float:
    """Of Kendall's statistic of one row."""
    number = len(row[0])
    rest = np.asarray(row[1], dtype=np.float64) - estimate * np.asarray(row[0], dtype=np.float64)
    return number * (number - 1) * (2 * number + 5) / 18 * _widened(_ranks(rest))


def _ranks(values: _Floats) -> _Floats:
    """Equal values have equal ranks."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _widened(ranks: _Floats) -> float:
    """By how much the variance is larger than with independent points, 1 or more."""
    number = len(ranks)
    off = ranks - ranks.mean()
    scale, total = float(off @ off), 0.0
    for lag in range(1, number - 2 if scale else 1):
        alike = float(off[:-lag] @ off[lag:]) / scale
        if alike <= 0:
            break
        total += alike * math.prod(number - lag - k for k in range(3)) / math.prod(number - k for k in range(3))
    return 1 + 2 * total


def rate(rows: Sequence[Row]) -> Slope:
    """The common rate at which counts grow that never fall again; with no growth, an interval from 0."""
    steps = [np.diff(np.minimum.accumulate(np.asarray(y, dtype=np.float64)[::-1])[::-1]) for _, y in rows]
    length = sum(x[-1] - x[0] for x, _ in rows if len(x))
    if not length:
        return UNKNOWN
    grown = max(float(sum(each.sum() for each in steps)), 0.0)
    clump = _clump(np.concatenate(steps))
    low, high = _poisson_interval(grown / clump)
    return Slope(grown / length, low * clump / length, high * clump / length)


def _clump(steps: _Floats) -> float:
    """How much more the steps vary than single ones at random times would; 1 or more."""
    mean = float(steps.mean())
    return max(float(steps.var(ddof=1)) / mean, 1.0) if mean > 0 and len(steps) > 1 else 1.0


def _poisson_interval(count: float) -> tuple[float, float]:
    """The means between which so many events are no surprise."""
    events = math.floor(count + 1e-9)
    low = _where_falls_to(1 - _TAIL, lambda mean: _at_most(events - 1, mean), events) if events else 0.0
    return low, _where_falls_to(_TAIL, lambda mean: _at_most(events, mean), events)


def _at_most(events: int, mean: float) -> float:
    """Probability of so many events or fewer."""
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(events + 1))


def _where_falls_to(level: float, falling: Callable[[float], float], events: int) -> float:
    """The mean at which the probability falls to a level."""
    low, high = 1e-12, 2.0 * events + 100
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2
