"""Upper limits of noise: a near limit that noise seldom exceeds, and a far limit that noise does not exceed. Pure.

A sample of n noise values is given, and N values of the same kind are to be tested. The limit must have the property
that any of N noise values exceeds it with probability ``alpha`` at most. The largest value of the sample would be such
a limit only if n were thousands of times N, and a normal distribution fitted to the body does not describe the tail. So
each limit rests on an assumption about the tail beyond the sample.

The *near* limit (``near_limit``) assumes that the tail is no heavier than exponential. A value beyond it is doubtful.

Rule 1. The tail begins at an order statistic. With u the (k+1)-th largest value of the sample, a new value exceeds u
        with probability (k+1)/(n+1), whatever the distribution.
Rule 2. The excesses over u are taken as exponential. Their scale is estimated from the k excesses of the sample, whose
        sum is S: for a new excess X, X/(X+S) is Beta(1, k), so that P(X > x) = (1 + x/S)^-k. This prediction limit is
        exact for any k and widens by itself if k is small. (The quantile S/k · ln(1/p), which takes the estimated scale
        for the true one, is too low: about half of it for k = 10 and p = 1e-6.)
Rule 3. An exponential tail is conservative for every tail that is at least as thin: Gaussian, uniform, rounding. Their
        mean excess falls as the threshold rises, so that the excesses over u overstate the tail further out.
Rule 4. A mixture of scales (tokens differ in how ill-conditioned they are) has a heavier tail than its body suggests.
        The tail becomes thinner further out, from an unknown k on. So the limit is the larger one of the limits for two
        k: the square root of n, and a tenth of n.
Rule 5. Quantised noise (bfloat16 logits) comes in steps: the k largest values may be equal, and S zero. So equal values
        are spread evenly, halfway to their neighbours: before rounding, they were anywhere in this interval.
Rule 6. The probabilities of the N values are added up (Bonferroni). This holds for any dependence between the values;
        tokens of one request go wrong together.

Rules 2 to 4 do not hold for every noise. If a few tokens flip and the others hardly move, a sample has few flips;
Student's t with 3 degrees of freedom has no exponential tail at all. One clean run in six then exceeds the near limit.

The *far* limit (``far_limit``) assumes only a tail index of 3 or more (rule 8). A value beyond it is wrong.

Rule 7. The logarithms of values beyond u are taken as exponential: a Pareto tail. Its slope is estimated from the k
        logarithmic excesses. With L their sum, P(ln(X/u) > y) = (1 + y/L)^-k: again exact for any k. A Pareto tail is
        conservative for every tail whose slope in a log-log plot steepens outwards: exponential, Gaussian, log-normal
        and Student's t. Thin tails are steep, so that their limit is not much wider: seven times u for Gaussian noise.
Rule 8. No tail is taken to be heavier than one of index 3: the probability to exceed x > u falls as (u/x)^3 at least.
        This bounds the limit if the slope of rule 7 is uncertain because of few values, or if flips are so far above
        all other values that the limit of rule 7 would never be exceeded.
Rule 9. Values of one output depend on each other: one output that is noisier as a whole fills the tail by itself. So
        the k in the prediction of rule 7 is the number of outputs among the k largest values.

Neither limit foresees a kind of token that is many times as noisy as all others and that the sample has once or not at
all: with one token in 500 ten times as noisy, a few clean runs in a hundred are still found invalid. So further control
outputs, of the suspected prompt and of others, are made before an output is reported as wrong.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MIN_SAMPLE = 100
"""Size of the smallest sample that has a near limit. If one value in thirty is a step and the others are 0, a sample of
twenty may have no step, and its limit would be 0."""
_MIN_TAIL_INDEX = 3.0
"""Tail index of the heaviest noise (rule 8): that of Student's t with 3 degrees of freedom."""
_MAX_EXPONENT = 50.0
"""Keeps the exponential of rule 7 from overflowing. Rule 8 gives a lower limit long before."""
_MIN_TAIL = 16
"""Fewest values in the tail of rule 7. Fewer do not show a slope."""
_MIN_EXCESSES = 8
"""Fewest excesses of rule 2. With fewer, the prediction limit is tens of scales wide and detects nothing."""
_EQUAL = 1e-3
"""Values that differ by less than this share of the largest value count as equal: a step of bfloat16 is 1/8 of the
largest value or more, and float32 adds 1e-6 of it."""


def near_limit(sample: Floats, future: int, alpha: float, *, min_sample: int = MIN_SAMPLE) -> float | None:
    """The limit of rules 1 to 6, in the unit of the sample.

    Any of ``future`` noise values exceeds it with probability ``alpha`` at most. ``sample``: absolute values in any
    order, of shape (n,). None if n is below ``min_sample`` or a value is not finite.
    """
    n = len(sample)
    if n < min_sample or not np.isfinite(sample).all():
        return None
    falling = _spread(np.sort(sample))[::-1]
    each = alpha / max(future, 1)
    return float(max(_prediction_limit(falling, k, each) for k in _depths(n)))


def _spread(rising: Floats) -> Floats:
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
    spread = np.repeat(low, counts) + within * np.repeat(high - low, counts)
    return np.where(np.repeat(counts, counts) > 1, spread, rising)


def _depths(n: int) -> Iterator[int]:
    """The two k of rule 4: how many of the largest values are the tail."""
    yield from {min(max(k, _MIN_EXCESSES), n - 1) for k in (math.isqrt(n), n // 10)}


def _prediction_limit(falling: Floats, k: int, each: float) -> float:
    """The limit of rule 2 for one k. ``each``: the probability with which a single new value may exceed it."""
    start = falling[k]
    excess = float((falling[:k] - start).sum())
    share = each * (len(falling) + 1) / (k + 1)
    return float(start + excess * (share ** (-1.0 / k) - 1.0)) if share < 1.0 else float(start)


def far_limit(sample: Floats, future: int, alpha: float, *, part: float, outputs: Indices | None = None) -> float:
    """The limit of rules 7 to 9, in the unit of the sample; infinite if the sample is empty or a value is not finite.

    Any of ``future`` noise values exceeds it with probability ``alpha`` at most. ``sample``: absolute values, of shape
    (n,). ``part``: the share of the sample that is its tail. ``outputs``: the number of the output that each value
    belongs to, of shape (n,); None if each value belongs to an output of its own.
    """
    n = len(sample)
    if not n or not np.isfinite(sample).all():
        return math.inf
    order = np.argsort(sample, kind="stable")
    falling = _spread(sample[order])[::-1]
    positive = int((falling > 0).sum())
    if not positive:
        return 0.0
    k = min(max(_MIN_TAIL, int(part * n)), positive - 1)
    start = float(falling[k])
    share = min(1.0, alpha / max(future, 1) * (n + 1) / (k + 1))
    heaviest = math.exp(-math.log(share) / _MIN_TAIL_INDEX)
    if k == 0:
        return start * heaviest
    independent = k if outputs is None else len(np.unique(outputs[order[::-1][:k]]))
    slope = float(np.log(falling[:k] / start).mean())
    exponent = slope * independent * math.expm1(-math.log(share) / independent)
    return start * min(heaviest, math.exp(min(exponent, _MAX_EXPONENT)))
