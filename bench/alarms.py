"""How many runs without damage were accused, and whether that is more than the stated rate allows. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np

from harness.verify.judging.limits import ALPHA
from harness.verify.judging.noise import Floats

CONFIDENCE = 0.95
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Alarms:
    """Runs that hold nothing but noise, and what the rule said about them."""

    alarms: int = 0
    """Runs in which an output was accused."""
    judged: int = 0
    """Runs that the rule judged at all."""
    unjudged: int = 0
    """Runs whose controls did not suffice for the rule. They are not counted as runs without an alarm."""

    def __add__(self, other: "Alarms") -> "Alarms":
        return Alarms(self.alarms + other.alarms, self.judged + other.judged, self.unjudged + other.unjudged)

    @property
    def interval(self) -> tuple[float, float]:
        """The exact confidence interval (Clopper-Pearson) of the share of judged runs that are accused."""
        return clopper_pearson(self.alarms, self.judged)

    def exceeds_rate(self, compared: int = 1) -> bool:
        """Whether the rate is above the stated one beyond chance: even the lower end of its interval is.

        ``compared``: how many rates are asked this. The more there are, the more likely chance lifts one of them, so
        that the interval of each has a confidence with which all of them together have 95 %.
        """
        return clopper_pearson(self.alarms, self.judged, 1 - (1 - CONFIDENCE) / compared)[0] > ALPHA

    def __str__(self) -> str:
        low, high = (1000 * end for end in self.interval)
        unjudged = f", {self.unjudged:,} runs not judged" if self.unjudged else ""
        within = f"{low:.2g} to {high:.2g} in 1,000 with {CONFIDENCE:.0%} confidence"
        return f"{self.alarms:,} alarms in {self.judged:,} runs ({within}{unjudged})"

    def as_json(self) -> dict[str, Any]:
        """The numbers, shares from 0 to 1."""
        low, high = self.interval
        return {
            "alarms": self.alarms,
            "judged": self.judged,
            "unjudged": self.unjudged,
            "interval": [low, high],
        }


def total(parts: Iterable[Alarms]) -> Alarms:
    """The sum."""
    return sum(parts, Alarms())


def exceeding(parts: Mapping[str, Alarms]) -> list[str]:
    """Which of the named parts, or all of them together, alarm more often than the stated rate; a sentence for each."""
    together = {"all together": total(parts.values())} if len(parts) > 1 else {}
    found = [name for name, one in parts.items() if one.exceeds_rate(len(parts))]
    found += [name for name, one in together.items() if one.exceeds_rate()]
    return [f"{name}: alarms exceed the stated rate of {1000 * ALPHA:g} in 1,000 runs beyond chance" for name in found]


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact confidence interval of a binomial share, for any number of trials; (0, 1) for none.

    ``harness.selftest.interval`` multiplies binomial coefficients, which have no float beyond a thousand trials. Here
    their logarithms are added.
    """
    tail = (1 - confidence) / 2
    low = _where_falls_to(1 - tail, successes - 1, trials) if successes else 0.0
    high = _where_falls_to(tail, successes, trials) if successes < trials else 1.0
    return low, high


def _where_falls_to(level: float, successes: int, trials: int) -> float:
    """The share at which ``successes`` or fewer have the probability ``level``, which falls as the share rises."""
    counts = np.arange(successes + 1, dtype=np.float64)
    ways = np.array([lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1) for k in range(successes + 1)])
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(ways, counts, trials, middle) > level else (low, middle)
    return high


def _at_most(ways: Floats, counts: Floats, trials: int, share: float) -> float:
    """Probability of any of the ``counts``. ``ways``: the logarithm of the binomial coefficient of each."""
    return float(np.exp(ways + counts * log(share) + (trials - counts) * np.log1p(-share)).sum())
