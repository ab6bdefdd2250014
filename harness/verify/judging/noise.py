"""How far noise reaches: two limits, one that noise seldom crosses and one that it does not. Pure.

A sample of n values is known to be noise; N values of the same kind are to be judged; wanted is a limit that any of
the N exceeds with probability ``alpha`` at most. Largest-of-sample limits need n to be thousands of times N, and a
normal distribution fitted to the body says nothing about the tail. Whatever is said of a tail beyond the sample is an
assumption; each of the two limits has its own.

The *near* limit (``noise_limit``) assumes a tail as thin as an exponential one. Who is beyond it is doubtful.

Rule 1. Peaks over an order statistic. With u the (k+1)-th largest of the sample, a new value exceeds u with
        probability (k+1)/(n+1), whatever the distribution.
Rule 2. Beyond u the tail is taken as exponential, of a scale that is not known but seen in the k excesses, whose sum is
        S. Then X/(X+S) is Beta(1, k), and P(excess > x) = (1 + x/S)^-k: a prediction limit, exact for any k, that
        widens by itself where k is small. (The limit with an estimated scale put in, S/k · ln(1/p), is too low: for
        k = 10 and p = 1e-6 by the half.)
Rule 3. Exponential is the safe side of every tail that is at least as thin: Gaussian, uniform, rounding. There the mean
        excess falls as the level rises, so that what is seen beyond u overstates what lies further out.
Rule 4. A mixture of scales (tokens differ in how ill-conditioned they are) is thicker than its body shows and thinner
        further out; from which k on is not known. The limit is the larger of those for two k: the square root of n,
        and a tenth of n.
Rule 5. Quantised noise (bfloat16 logits) comes in steps: the k largest may be equal, and S nothing. Equal values are
        therefore spread evenly halfway to their neighbours, which is all that they say: that they were rounded.
Rule 6. Over the N values the probabilities are added up (Bonferroni): tokens of one request go wrong together, and the
        sum holds for any dependence.

Rules 2 to 4 do not hold for every noise. Where a few tokens flip and the others hardly move, a sample holds few flips;
Student's t with 3 degrees of freedom has no exponential tail at all. One clean run in six crosses the near limit then.

The *far* limit (``far_limit``) assumes only that the noise has a variance. Who is beyond it is accused.

Rule 7. Beyond u the *logarithm* is taken as exponential, of a scale seen in the k logarithmic excesses: a Pareto tail.
        With L their sum, P(ln(X/u) > y) = (1 + y/L)^-k: again exact for any k. It is the safe side of every tail whose
        slope in a doubly logarithmic plot steepens outwards: exponential, Gaussian, log-normal and Student's t. Thin
        tails are steep, and pay little for this: seven times u for Gaussian noise.
Rule 8. No tail is taken to be heavier than of index 3, which is where variances end: beyond u a value falls off as
        (u/x)^3 at least. That bounds the limit where few values make the slope of rule 7 uncertain, or where flips
        stand so far above everything else that rule 7 would never accuse anybody.
Rule 9. Values of one output go together: an output that is noisier as a whole fills the tail by itself. The k of
        rule 7's prediction is therefore the number of outputs among the k largest values.

What neither limit foretells is a kind of token that the sample holds once or not at all and that is many times as noisy
as all others: with one token in 500 ten times as noisy, a few runs in a hundred still accuse one. Therefore nobody is
accused before more control outputs were made, of his prompt and of others.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

LEAST = 100
"""Values below which a sample has no tail to speak of: there is no limit then. Of steps taken one time in thirty,
twenty values may show none, and the limit would be nothing."""
HEAVIEST = 3.0
"""Tail index of the heaviest noise that is reckoned with (rule 8): that of Student's t with 3 degrees of freedom."""
_LARGEST_EXPONENT = 50.0
# Of e, lest it overflow; rule 8 gives the limit long before.
_FEWEST_TAIL = 16
# Values of the tail of rule 7. With fewer, no slope is known, and rule 8 alone gives the limit.
_FEWEST_EXCESSES = 8
# With fewer, the prediction limit of rule 2 is tens of scales wide and separates nothing from anything.
_EQUAL = 1e-3
# Of the largest value. A step of bfloat16 is 1/8 of the largest or more, and float32 adds 1e-6 of it.


def noise_limit(sample: Floats, future: int, alpha: float, *, least: int = LEAST) -> float | None:
    """The limit, in the sample's unit, that any of ``future`` values exceeds with probability ``alpha`` at most.

    ``sample``: absolute values, of shape (n,), in any order. None where n is below ``least``, or a value not a number.
    """
    n = len(sample)
    if n < least or not np.isfinite(sample).all():
        return None
    falling = _spread(np.sort(sample))[::-1]
    each = alpha / max(future, 1)
    return float(max(_beyond(falling, k, each) for k in _depths(n)))


def _spread(rising: Floats) -> Floats:
    """Rule 5. Values that are equal, or as good as that, become evenly spaced; shape (n,), rising, before and after."""
    steps = np.round(rising / (_EQUAL * rising[-1])) if rising[-1] > 0 else rising
    first = np.concatenate(([0], np.flatnonzero(np.diff(steps)) + 1))
    counts = np.diff(np.append(first, len(rising)))
    atoms = rising[first]
    between = (atoms[1:] + atoms[:-1]) / 2
    # Below the lowest and above the highest as far as to the neighbour; a single value may be half as much again.
    below = max(0.0, 2 * atoms[0] - between[0]) if len(between) else atoms[0] / 2
    above = 2 * atoms[-1] - between[-1] if len(between) else atoms[0] * 1.5
    low, high = np.append(below, between), np.append(between, above)
    within = (np.arange(len(rising)) - np.repeat(first, counts) + 0.5) / np.repeat(counts, counts)
    spread = np.repeat(low, counts) + within * np.repeat(high - low, counts)
    return np.where(np.repeat(counts, counts) > 1, spread, rising)


def _depths(n: int) -> Iterator[int]:
    """How many of the largest values are taken for the tail."""
    yield from {min(max(k, _FEWEST_EXCESSES), n - 1) for k in (math.isqrt(n), n // 10)}


def _beyond(falling: Floats, k: int, each: float) -> float:
    """The limit of rule 2 for one k; ``each``: the probability that one new value may exceed it."""
    start = falling[k]
    excess = float((falling[:k] - start).sum())
    share = each * (len(falling) + 1) / (k + 1)
    return float(start + excess * (share ** (-1.0 / k) - 1.0)) if share < 1.0 else float(start)


def far_limit(sample: Floats, future: int, alpha: float, *, part: float, owners: Indices | None = None) -> float:
    """The limit of rules 7 to 9, in the sample's unit; infinite where there is no sample.

    ``sample``: absolute values, of shape (n,). ``part``: share of the sample that is its tail. ``owners``: the output
    that each value is of, of shape (n,); None where each is of one of its own.
    """
    n = len(sample)
    if not n or not np.isfinite(sample).all():
        return math.inf
    order = np.argsort(sample, kind="stable")
    falling = _spread(sample[order])[::-1]
    above_nothing = int((falling > 0).sum())
    if not above_nothing:
        return 0.0
    k = min(max(_FEWEST_TAIL, int(part * n)), above_nothing - 1)
    start = float(falling[k])
    share = min(1.0, alpha / max(future, 1) * (n + 1) / (k + 1))
    heaviest = math.exp(-math.log(share) / HEAVIEST)
    if k == 0:
        return start * heaviest
    independent = k if owners is None else len(np.unique(owners[order[::-1][:k]]))
    slope = float(np.log(falling[:k] / start).mean())
    exponent = slope * independent * math.expm1(-math.log(share) / independent)
    return start * min(heaviest, math.exp(min(exponent, _LARGEST_EXPONENT)))
