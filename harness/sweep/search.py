"""The search for the highest rate that keeps the objectives.

Step 1. From the first rate on, double it until one does not keep them. If the first does not, halve it until one does.
Step 2. Between the highest rate that keeps them and the lowest that does not, try the geometric mean, until the two are
        at most 10 % apart. That a rate keeps them has chance in it, so a finer search would find chance.
"""

import math
from collections.abc import Generator
from enum import Enum, auto

_CLOSE = 1.1
_HALVINGS = 6
"""At a 64th of the first rate, requests hardly ever meet: lower rates are answered no faster."""
_DOUBLINGS = 14
"""16,384 times the first rate. No deployment is that much faster than its user expects."""


class Step(Enum):
    """What a rate came to."""

    KEEPS = auto()
    """Enough requests kept the objectives."""
    FAILS = auto()
    STOP = auto()
    """Nothing can be learned at other rates: the client was too slow, or the user ended the sweep."""


Search = Generator[float, Step, None]
"""Yields the next rate, in requests per second; is sent what it came to."""


def search(first: float) -> Search:
    """The rates to try, beginning with ``first``."""
    low, high, step = yield from _bracket(first)
    while step is not Step.STOP and low > 0 and high < math.inf and high / low > _CLOSE:
        rate = _rounded(math.sqrt(low * high))
        step = yield rate
        low, high = (rate, high) if step is Step.KEEPS else (low, rate)


def _bracket(first: float) -> Generator[float, Step, tuple[float, float, Step]]:
    """The highest rate that keeps the objectives (0: none), the lowest that does not (infinite: none)."""
    low, high = 0.0, math.inf
    step, rate = (yield first), first
    if step is Step.KEEPS:
        for _ in range(_DOUBLINGS):
            low, rate = rate, 2 * rate
            step = yield rate
            if step is not Step.KEEPS:
                return low, rate, step
        return rate, high, step
    for _ in range(_HALVINGS):
        if step is Step.STOP:
            break
        high, rate = rate, rate / 2
        step = yield rate
        if step is Step.KEEPS:
            return rate, high, step
    return low, high, step


def _rounded(rate: float) -> float:
    """Three significant digits."""
    return float(f"{rate:.3g}")
