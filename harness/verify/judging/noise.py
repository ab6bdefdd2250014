"""How far noise reaches: the tail of a sample of noise, and the limit that noise seldom exceeds. Pure.

A sample of n values of noise is given. Wanted is the limit that a new value exceeds with some small probability p,
usually far smaller than 1/n. So the tail beyond the sample has to be extrapolated, and the result depends on how heavy
the tail is taken to be. No family fits all noise: on GPUs in bfloat16 it comes in steps and ends soon; a few noisy
prompts or flipped tokens make it heavy. So the heaviness is estimated, and mistrusted where few values show it.

Rule 1. The tail begins at an order statistic. With u the (k+1)-th largest value of the sample, a new value exceeds u
        with probability (k+1)/(n+1), whatever the distribution.
Rule 2. The excesses over u follow a generalised Pareto distribution (Pickands, Balkema, de Haan): of all distributions
        with a smooth tail, it is the limit for high u. Its shape says how heavy the tail is: 0 is exponential, 1/3 is
        the tail of Student's t with 3 degrees of freedom, and below 0 the tail ends at a finite value.
Rule 3. The shape is estimated from the k excesses (the estimator of Zhang and Stephens, 2009: the mean of the shape
        under a likelihood of the data), and drawn towards an expected shape, as if this had been estimated from another
        sample, with a standard error of its own. A part of the standard error of the result is added (``margin``): an
        underestimated shape gives false alarms, an overestimated one only a wider limit. No shape is taken to be below
        0 or above 1/3. The upper bound keeps a limit finite if flips lie far above all other values; noise with a
        heavier tail than that of Student's t with 3 degrees of freedom may exceed the limit more often than stated.
Rule 4. The scale is estimated, too. For an exponential tail, X/(X+S) is Beta(1, k) for a new excess X and the sum S of
        the k excesses, so that P(X > x) = (1 + x/S)^-k: a generalised Pareto distribution of shape 1/k. So 1/k is added
        to the shape. This widens the limit by itself where k is small.
Rule 5. Quantised noise (bfloat16 logits) comes in steps: the k largest values may be equal. So equal values are spread
        evenly, halfway to their neighbours: before rounding, they were anywhere in this interval.
Rule 6. A mixture of scales has a heavier tail than its body suggests, from an unknown k on. So two k may be used, a
        share of n and the square root of n, and the more cautious result counts.
Rule 7. The sample may hold values that are not noise: a few damaged outputs among those that were served. So the search
        goes outwards: the tail is first estimated from the values up to the largest that is known to be noise, but from
        half of all values at least and from nine tenths at most. Values within the limit that noise exceeds in one run
        of ten (OUTLYING) are taken in, and the tail is estimated again, until nothing changes. A gap that is
        wider than noise explains stops the search; from outside, a few values beyond it would explain each other.
        Values that are known to be noise (those of control outputs) are never left out.
Rule 8. Values of one output depend on each other: one output that is noisier as a whole fills the tail by itself. So
        the k of rules 3 and 4 is the number of different outputs among the k largest values.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

MIN_SAMPLE = 16
"""Size of the smallest sample that has a tail."""
HEAVIEST = 1 / 3
"""The largest shape that noise is taken to have (rule 3)."""
OUTLYING = 0.1
"""Values are taken into the sample up to the limit that noise exceeds in this share of runs (rule 7). It is the near
limit's share, too (floor.py)."""
_MIN_EXCESSES = 8
"""Fewest excesses. With fewer, rule 4 makes the limit tens of scales wide."""
_FIRST = 0.5, 0.9
"""Shares of the values from which rule 7 starts, at least and at most."""
_MOST_ROUNDS = 20
_EQUAL = 1e-3
"""Values that differ by less than this share of the largest value count as equal: a step of bfloat16 is 1/8 of the
largest value or more, and float32 adds 1e-6 of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected shape of a tail (rule 3)."""

    shape: float
    error: float
    """Its standard error: how far the real shape may be from it."""
    margin: float = 0.5
    """How many standard errors of the estimated shape are added to it."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The tail of a distribution of noise, as estimated from a sample for one k (rules 1 to 5)."""

    start: float
    """Where the tail begins, in the unit of the sample."""
    share: float
    """Probability that a new value exceeds ``start``."""
    scale: float
    """Scale of the excesses over ``start``, in the unit of the sample."""
    shape: float
    """Shape of the excesses, above 0."""

    def limit(self, probability: float) -> float:
        """The limit that a new value exceeds with this probability; never below ``start``."""
        ratio = max(self.share / probability, 1.0)
        return self.start + self.scale * math.expm1(self.shape * math.log(ratio)) / self.shape

    def probability(self, value: float) -> float:
        """The probability that a new value exceeds ``value``; for values below ``start``, that of ``start``."""
        excess = value - self.start
        if excess <= 0:
            return self.share
        if self.scale == 0:
            return 0.0
        return float(self.share * (1 + self.shape * excess / self.scale) ** (-1 / self.shape))


@dataclass(frozen=True, slots=True)
class Tails:
    """The tail as estimated for two k (rule 6). Empty if the sample is too small or has no finite values."""

    each: tuple[Tail, ...]

    def limit(self, probability: float) -> float:
        """The limit that a new value exceeds with this probability at most; infinite if nothing is known."""
        return max((tail.limit(probability) for tail in self.each), default=math.inf)

    def probability(self, value: float) -> float:
        """The probability that a new value exceeds ``value``, at most; 1 if nothing is known."""
        return max((tail.probability(value) for tail in self.each), default=1.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of which most are noise."""

    values: Floats
    """Absolute values, of shape (n,)."""
    certain: Flags
    """Which of them are certainly noise, of shape (n,)."""
    outputs: Indices | None = None
    """The number of the output that each value belongs to, of shape (n,); None: each belongs to one of its own."""

    def only(self, kept: Flags) -> "Sample":
        """The sample without the other values."""
        outputs = None if self.outputs is None else self.outputs[kept]
        return Sample(self.values[kept], self.certain[kept], outputs)


def estimate_tails(sample: Sample, future: int, expected: Expected, *, part: float = 0.1, twice: bool = True) -> Tails:
    """The tail of noise in the sample (rules 1 to 8).

    ``future``: how many values are tested, for rule 7. ``expected``: the expected shape (rule 3). ``part``: the share
    of the sample that is its tail. ``twice``: whether the square root of n is used, too (rule 6).
    """
    if len(sample.values) < MIN_SAMPLE or not np.isfinite(sample.values).all():
        return Tails(())
    kept = sample.certain | (sample.values <= _first_cut(sample))
    for _ in range(_MOST_ROUNDS):
        tails = _tails(sample.only(kept), expected, part, twice=twice)
        inside = sample.certain | (sample.values <= tails.limit(OUTLYING / max(future, 1)))
        if np.array_equal(inside, kept):
            break
        kept = inside
    return tails


def shape_of_tail(sample: Sample, expected: Expected, *, part: float) -> float:
    """The shape of the largest ``part`` of the values, without the margin of rule 3."""
    order = np.argsort(sample.values, kind="stable")
    falling = spread(sample.values[order])[::-1]
    k = min(max(_MIN_EXCESSES, int(part * len(falling))), len(falling) - 1)
    if k < 1:
        return expected.shape
    return _shape(falling[:k] - falling[k], _independent(sample, order, k), expected)[0]


def _first_cut(sample: Sample) -> float:
    """Where the search of rule 7 starts."""
    least, most = np.quantile(sample.values, _FIRST)
    known = sample.values[sample.certain]
    return float(np.clip(known.max(), least, most)) if len(known) else float(most)


def _tails(sample: Sample, expected: Expected, part: float, *, twice: bool) -> Tails:
    order = np.argsort(sample.values, kind="stable")
    falling, n = spread(sample.values[order])[::-1], len(order)
    depths = {min(max(k, _MIN_EXCESSES), n - 1) for k in (int(part * n), *([math.isqrt(n)] if twice else []))}
    return Tails(tuple(_tail(falling, k, _independent(sample, order, k), expected) for k in depths))


def _independent(sample: Sample, order: Indices, k: int) -> int:
    """How many outputs the k largest values belong to (rule 8). ``order``: of the values, rising."""
    return k if sample.outputs is None else len(np.unique(sample.outputs[order[::-1][:k]]))


def _tail(falling: Floats, k: int, independent: int, expected: Expected) -> Tail:
    start = float(falling[k])
    excesses = falling[:k] - start
    mean, error = _shape(excesses, independent, expected)
    shape = min(max(mean + expected.margin * error, 0.0), HEAVIEST)
    # The mean of a generalised Pareto distribution is its scale divided by 1 - shape.
    scale = float(excesses.mean()) * (1 - shape)
    return Tail(start, (k + 1) / (len(falling) + 1), scale, shape + 1 / independent)


def _shape(excesses: Floats, independent: int, expected: Expected) -> tuple[float, float]:
    """The shape of rule 3 and its standard error. ``independent``: how many independent excesses there are."""
    found = min(max(_zhang_stephens(excesses), -0.5), 1.0)
    error = (1 + max(found, 0.0)) / math.sqrt(independent)
    trust, trust_found = expected.error**-2, error**-2
    mean = (expected.shape * trust + found * trust_found) / (trust + trust_found)
    return mean, 1 / math.sqrt(trust + trust_found)


def _zhang_stephens(excesses: Floats) -> float:
    """The shape of a generalised Pareto distribution: Zhang and Stephens, Technometrics 51 (2009), 316 to 325.

    With b = -shape/scale, the likelihood is a function of b alone. The estimate is the mean over a grid of b, weighted
    by the likelihood.
    """
    rising = np.sort(excesses[excesses > 0])
    n = len(rising)
    if n < _MIN_EXCESSES:
        return 0.0
    points = 30 + math.isqrt(n)
    # The grid of b, from far below 0 (a heavy tail) to the end of a tail that reaches just beyond the largest value.
    steps = 1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    grid = steps / (3 * rising[int(n / 4 + 0.5) - 1]) + 1 / rising[-1]
    grid = grid[np.abs(grid) > np.finfo(float).eps / rising[-1]]
    shapes = np.log1p(-grid[:, None] * rising).mean(axis=1)
    likelihood = n * (np.log(-grid / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max())
    best = float((grid * weights).sum() / weights.sum())
    return float(np.log1p(-best * rising).mean())


def spread(rising: Floats) -> Floats:
    """Rule 5: space equal values evenly. The values rise, and keep their shape (n,)."""
    steps = np.round(rising / (_EQUAL * rising[-1])) if rising[-1] > 0 else rising
    first = np.concatenate(([0], np.flatnonzero(np.diff(steps)) + 1))
    counts = np.diff(np.append(first, len(rising)))
    atoms = rising[first]
    between = (atoms[1:] + atoms[:-1]) / 2
    # The outermost intervals are symmetric. If all values are equal, theirs is 0.5 to 1.5 times the value.
    below = max(0.0, 2 * atoms[0] - between[0]) if len(between) else atoms[0] / 2
    above = 2 * atoms[-1] - between[-1] if len(between) else atoms[0] * 1.5
    low, high = np.append(below, between), np.append(between, above)
    within = (np.arange(len(rising)) - np.repeat(first, counts) + 0.5) / np.repeat(counts, counts)
    evenly = np.repeat(low, counts) + within * np.repeat(high - low, counts)
    return np.where(np.repeat(counts, counts) > 1, evenly, rising)
