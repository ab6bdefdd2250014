"""Whether a difference between two sets of runs is real, within the noise, or cannot be told. No I/O.

Requests of one run wait together, and one run's machine is warmer, busier or emptier than another's. So the *run* is
the unit: each run gives one value of each metric, and 400 requests of one run are no 400 witnesses.

A difference is REAL if all of these hold:

1. Welch's t test of the runs' values (their logarithms, if all are above 0) is significant at the family's level after
   Holm's correction for all metrics of the family. It finds changes that are large beside the scatter of the runs, and
   rests on the values being roughly normally distributed.
2. A permutation test over the runs is significant at PERMUTED for this metric. It rests on nothing but the runs being
   exchangeable if nothing has changed, and holds for outliers and for machines with a slow and a fast mode. All
   divisions of the runs into two sides are looked at. With 5 and 5 runs there are 252, and only two of them separate
   the sides as completely as the one found: p = 0.008. With fewer runs no p is as small, and no difference is real.
3. If all runs of one side are older than all of the other, the difference is also significant at the family's level,
   corrected for all its metrics, beside a straight drift in time: such sides differ by whatever the machine did in that
   time. Without this, a random walk of the machine gives false alarms in 3 of 10 comparisons of 5 and 5 runs.

It CANNOT BE TOLD if the first holds but the runs are too few for the second, or the third fails. It is WITHIN THE NOISE
if the first fails or if the second fails with runs enough; ``smallest`` says which change would have been found.

With one run on a side and fewer than three on the other, nothing is known of the noise between runs. What is known is
the noise within each run (load/latency/confidence.py). A difference within that is within the noise, since noise
between runs only adds to it; a larger one cannot be told.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special, stats

LEVEL = 0.01
"""Probability of a false alarm in one family of metrics, unless the family has a level of its own (metrics.py).
bench.compare_rates measures what it is in truth."""
PERMUTED = 0.01
"""The p value that a permutation test must reach: 2 / 252 with 5 and 5 runs."""
POWER = 0.8
"""``smallest`` is found with this probability."""
_MOST_SPLITS = 20_000
"""Divisions that are looked at: more than that are drawn at random."""

Floats = npt.NDArray[np.float64]


class Answer(StrEnum):
    """What is known of a difference."""

    SAME = "the same"
    REAL = "real"
    NOISE = "within the noise"
    UNKNOWN = "cannot be told"


@dataclass(frozen=True, slots=True)
class Sides:
    """One metric's values: one for each run."""

    baseline: tuple[float, ...]
    run: tuple[float, ...]
    within: float | None = None
    """Standard error of the difference within the runs, on the scale of ``difference``; None: not known. Used if the
    runs are too few to show how much runs differ."""
    times: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    """When the runs began, seconds; empty: not known."""
    plain: bool = False
    """Whether the difference is never one of logarithms."""

    @property
    def relative(self) -> bool:
        """Whether the difference is one of logarithms."""
        return not self.plain and min(*self.baseline, *self.run) > 0

    @property
    def scaled(self) -> tuple[Floats, Floats]:
        """The values on the scale on which they are compared."""
        sides = np.asarray(self.baseline, np.float64), np.asarray(self.run, np.float64)
        return (np.log(sides[0]), np.log(sides[1])) if self.relative else sides

    @property
    def difference(self) -> float:
        """Mean of the run side less mean of the baseline: of logarithms if ``relative``."""
        baseline, run = self.scaled
        return float(run.mean() - baseline.mean())

    @property
    def several(self) -> bool:
        """Whether the runs show how much runs differ: three on one side, or two on both."""
        sizes = sorted((len(self.baseline), len(self.run)))
        return sizes[1] >= 3 or sizes[0] >= 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one metric's values say. Differences are on the scale of :attr:`Sides.difference`."""

    difference: float
    low: float | None
    """End of the 95 % interval of the difference; None: not known."""
    high: float | None
    p: float | None
    """Of one test by itself: Welch's, or of the noise within runs."""
    p_family: float | None
    """The same after Holm's correction for the family."""
    p_permutation: float | None
    smallest: float | None
    """The smallest difference that would have been called real, with probability POWER; None: none would."""
    answer: Answer
    why: str = ""
    """Why it cannot be told."""


def judge_family(family: Sequence[Sides], level: float = LEVEL) -> list[Evidence]:
    """What is known of each metric's difference, with at most ``level`` probability of any false alarm among them."""
    tests = [_test(sides) for sides in family]
    corrected = holm([test.p for test in tests])
    return [
        _judged(sides, test, p, level=level, members=len(family))
        for sides, test, p in zip(family, tests, corrected, strict=True)
    ]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P values corrected by Holm's method for how many there are; None stays None and counts for nothing."""
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    worst = 0.0
    for rank, (value, place) in enumerate(known):
        worst = max(worst, min(1.0, value * (len(known) - rank)))
        corrected[place] = worst
    return corrected


def interval(sides: Sides, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of the difference; None if it is not known."""
    return _interval(sides.difference, _test(sides), confidence)


def splits(sides: Sides) -> int:
    """Into how many pairs of sides of these sizes the runs can be divided."""
    return math.comb(len(sides.baseline) + len(sides.run), len(sides.run))


def enough_runs(sides: Sides) -> bool:
    """Whether a permutation test of so many runs can reach PERMUTED. One run says nothing of its side's scatter."""
    return min(len(sides.baseline), len(sides.run)) > 1 and 2 / splits(sides) <= PERMUTED


@dataclass(frozen=True, slots=True)
class _Test:
    p: float | None
    error: float | None
    """Standard error of the difference."""
    freedom: float
    """Degrees of freedom."""


def _interval(difference: float, test: _Test, confidence: float) -> tuple[float, float] | None:
    if test.error is None:
        return None
    half = test.error * _t((1 + confidence) / 2, test.freedom)
    return difference - half, difference + half


def _t(probability: float, freedom: float) -> float:
    """The quantile of Student's t."""
    # The ufunc is twenty times as fast as scipy.stats.t, but knows no infinite freedom.
    return float(special.stdtrit(min(freedom, 1e9), probability))


def _test(sides: Sides) -> _Test:
    baseline, run = sides.scaled
    if not sides.several:
        return _within_runs(sides)
    if np.ptp(baseline) == 0 and np.ptp(run) == 0:
        return _Test(1.0 if baseline[0] == run[0] else 0.0, 0.0, len(baseline) + len(run) - 2)
    # With one value on a side, its variance is taken to be that of the other side.
    single = min(len(baseline), len(run)) == 1
    with warnings.catch_warnings():
        # Values that hardly differ lose precision in the variance; they are then no evidence either.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.ttest_ind(run, baseline, equal_var=single)
    error = abs(sides.difference / found.statistic) if found.statistic else _error(baseline, run)
    return _Test(float(found.pvalue), float(error), float(found.df))


def _error(baseline: Floats, run: Floats) -> float:
    return math.sqrt(baseline.var(ddof=1) / len(baseline) + run.var(ddof=1) / len(run))


def _within_runs(sides: Sides) -> _Test:
    if sides.difference == 0:
        return _Test(1.0, sides.within, math.inf)
    if not sides.within:
        return _Test(None, None, math.inf)
    return _Test(math.erfc(abs(sides.difference) / sides.within / math.sqrt(2)), sides.within, math.inf)


def _judged(sides: Sides, test: _Test, p_family: float | None, *, level: float, members: int) -> Evidence:
    candidate = p_family is None or p_family <= level
    permuted = permutation_p(sides) if candidate and enough_runs(sides) else None
    drift = _beside_drift(sides) if apart(sides) and sides.several else None
    answer, why = Answer.SAME, ""
    if len({*sides.baseline, *sides.run}) > 1:
        answer, why = _answer(sides, candidate=candidate, p=p_family, permuted=permuted)
        if answer is Answer.REAL and drift is not None and (drift.p is None or drift.p * members > level):
            answer, why = Answer.UNKNOWN, "a drift of the machine from the older to the newer runs may explain it"
    ends = _interval(sides.difference, test, 0.95)
    return Evidence(
        sides.difference,
        None if ends is None else ends[0],
        None if ends is None else ends[1],
        test.p,
        p_family,
        permuted,
        _smallest(drift or test, level / members) if enough_runs(sides) else None,
        answer,
        why,
    )


def _answer(sides: Sides, *, candidate: bool, p: float | None, permuted: float | None) -> tuple[Answer, str]:
    if not candidate or (permuted is not None and permuted > PERMUTED):
        return Answer.NOISE, ""
    if not sides.several:
        known = "it exceeds the noise within a run" if p is not None else "the noise within a run is not known"
        return Answer.UNKNOWN, f"{known}, and the noise between runs is not known"
    if not enough_runs(sides):
        return Answer.UNKNOWN, "it exceeds the scatter of the runs, which are too few"
    return Answer.REAL, ""


def permutation_p(sides: Sides) -> float:
    """The share of all divisions of the runs whose sides differ as much, two-sided."""
    baseline, run = sides.scaled
    found = stats.permutation_test(
        (run, baseline),
        lambda one, other, axis: np.mean(one, axis=axis) - np.mean(other, axis=axis),
        vectorized=True,
        n_resamples=_MOST_SPLITS,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def as_share(difference: float) -> float:
    """A difference of logarithms as a share of the baseline; infinite if no float is as large."""
    try:
        return math.expm1(difference)
    except OverflowError:
        return math.inf


def apart(sides: Sides) -> bool:
    """Whether all runs of one side began before all runs of the other."""
    first, second = sides.times
    return bool(first and second) and (max(first) < min(second) or max(second) < min(first))


def _beside_drift(sides: Sides) -> _Test:
    """The test of the difference beside a straight drift in the order of time, which both sides share."""
    values = np.concatenate(sides.scaled)
    side = np.repeat((0.0, 1.0), (len(sides.baseline), len(sides.run)))
    order = stats.rankdata(np.concatenate(sides.times))
    design = np.column_stack([np.ones_like(values), side, order - order.mean()])
    freedom = len(values) - 3
    solved, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    if freedom < 1 or rank < 3:
        # All runs of a side that began at one time: a drift and a change of the build are the same.
        return _Test(None, None, 0)
    variance = float(((values - design @ solved) ** 2).sum()) / freedom
    error = math.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1])
    if solved[1] * sides.difference <= 0:
        # All of the difference is drift.
        return _Test(1.0, error, freedom)
    return _Test(float(2 * special.stdtr(freedom, -abs(solved[1]) / error)) if error else 0.0, error, freedom)


def _smallest(test: _Test, level: float) -> float | None:
    """The smallest difference that is found, from the scatter of these runs, under Bonferroni's correction."""
    if test.error is None:
        return None
    return test.error * (_t(1 - level / 2, test.freedom) + _t(POWER, test.freedom))
