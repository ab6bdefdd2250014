"""How far noise reaches: the limit that a run of nothing but noise exceeds with a stated probability. Pure.

A sample of n values is known to be noise; N values of the same kind are to be judged; wanted is a limit that any of
the N exceeds with probability ``alpha`` at most. Largest-of-sample limits need n to be thousands of times N, and a
normal distribution fitted to the body says nothing about the tail. So:

Rule 1. Peaks over an order statistic. With u the (k+1)-th largest of the sample, a new value exceeds u with
        probability (k+1)/(n+1), whatever the distribution.
Rule 2. Beyond u the tail is taken as exponential, of a scale that is not known but seen in the k excesses, whose sum is
        S. Then X/(X+S) is Beta(1, k), and P(excess > x) = (1 + x/S)^-k: a prediction limit, exact for any k, that
        widens by itself where k is small. (The limit with an estimated scale put in, S/k · ln(1/p), is too low: for
        k = 10 and p = 1e-6 by the half.)
Rule 3. Exponential is the safe side of every tail that is at least as thin: Gaussian, uniform, rounding. There the mean
        excess falls as the level rises, so that what is seen beyond u overstates what lies further out.
Rule 4. A mixture of scales (tokens differ in how ill-conditioned they are) is thicker than its body shows and thinner
        further out; from which k on is not known. The limit is the largest of those for several k, from the tail
        (square root of n) to the body (a quarter of n).
Rule 5. Quantised noise (bfloat16 logits) comes in steps: the k largest may be equal and S nothing. No limit is less than
        twice the largest value of the sample, which admits steps not seen, and costs a factor of two at most.
Rule 6. Over the N values the probabilities are added up (Bonferroni): tokens of one request go wrong together, and the
        sum holds for any dependence.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST = 100
"""Values below which a sample has no tail to speak of: there is no limit then. Of steps taken one time in thirty, twenty
values may show none, and the limit would be nothing."""
_FEWEST_EXCESSES = 8
# With fewer, the prediction limit of rule 2 is tens of scales wide and separates nothing from anything.
_ROOM = 2.0


def noise_limit(sample: Floats, future: int, alpha: float, *, least: int = LEAST) -> float | None:
    """The limit, in the sample's unit, that any of ``future`` values exceeds with probability ``alpha`` at most.

    ``sample``: absolute values, of shape (n,), in any order. None where n is below ``least``, or a value not a number.
    """
    n = len(sample)
    if n < least or not np.isfinite(sample).all():
        return None
    falling = np.sort(sample)[::-1]
    each = alpha / max(future, 1)
    return float(max(_ROOM * falling[0], *(_beyond(falling, k, each) for k in _depths(n))))


def _depths(n: int) -> Iterator[int]:
    """How many of the largest values are taken for the tail."""
    yield from {min(max(k, _FEWEST_EXCESSES), n - 1) for k in (math.isqrt(n), n // 10, n // 4)}


def _beyond(falling: Floats, k: int, each: float) -> float:
    """The limit of rule 2 for one k; ``each``: the probability that one new value may exceed it."""
    start = falling[k]
    excess = float((falling[:k] - start).sum())
    share = each * (len(falling) + 1) / (k + 1)
    return float(start + excess * (share ** (-1.0 / k) - 1.0)) if share < 1.0 else float(start)
