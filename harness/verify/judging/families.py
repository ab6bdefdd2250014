"""Outputs that share a part of the probability of a false alarm, and the part's limits. Pure; theory: floor.py."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.averages import ByOutput, Kind, Usual, compared_length
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import ALPHA, RESOLUTION
from harness.verify.judging.noise import Tails

LOUDER = 5.0
"""A suspect, an output that was picked because it looked strange, counts as so many outputs (rule 3)."""


@dataclass(frozen=True, slots=True)
class Family:
    """Outputs that share a part of ALPHA (rule 3)."""

    averages: Mapping[Kind, Sequence[tuple[int, float]]]
    """The compared length and the average error of each output that has one."""
    tokens: int
    """Of all outputs together."""
    part: float
    """The part of ALPHA that the outputs share."""
    least: float
    """Averages up to this one are below RESOLUTION."""

    @classmethod
    def of(cls, outputs: Sequence[Forced], usual: Usual, part: float) -> "Family":
        """``usual``: the usual errors of a token."""
        averages = {kind: _with_lengths(ByOutput.of([usual.errors(one, kind) for one in outputs])) for kind in Kind}
        return cls(averages, sum(one.tokens for one in outputs), part, RESOLUTION / usual.drift)

    @property
    def keys(self) -> set[tuple[Kind, int]]:
        """The kinds and compared lengths of all averages."""
        return {(kind, length) for kind, averages in self.averages.items() for length, _ in averages}

    @property
    def tested(self) -> tuple[int, int]:
        """How many tokens, and how many averages of each kind, are tested."""
        return self.tokens, max(map(len, self.averages.values()))

    @property
    def average_level(self) -> float:
        """The probability with which one average of one kind may exceed the strictest limit."""
        return self.part * ALPHA / 4 / max(self.tested[1], 1)

    @property
    def token_level(self) -> float:
        """The probability with which one token's drift, or its margin error, may exceed its limit."""
        return self.part * ALPHA / 4 / max(self.tokens, 1)

    def ratios(self, tails: Mapping[tuple[Kind, int], Tails]) -> list[float]:
        """The smaller probability of each output's averages divided by ``average_level``, for those not too small."""
        both = zip(*self.averages.values(), strict=True)
        return [min(self._ratio(tails, kind, *one) for kind, one in zip(Kind, pair, strict=True)) for pair in both]

    def _ratio(self, tails: Mapping[tuple[Kind, int], Tails], kind: Kind, length: int, shown: float) -> float:
        return tails[kind, length].probability(shown) / self.average_level if shown > self.least else math.inf


def _with_lengths(errors: ByOutput) -> list[tuple[int, float]]:
    lengths = map(compared_length, errors.lengths.tolist())
    averages = errors.whole_averages().tolist()
    return [(length, shown) for length, shown in zip(lengths, averages, strict=True) if length is not None]


def step_up(ratios: Sequence[float]) -> int:
    """Rule 2: the largest K for which K ratios are K at most; 1 at least."""
    rising = np.sort(np.array(ratios))
    below = np.flatnonzero(rising <= np.arange(1, len(rising) + 1))
    return int(below[-1]) + 1 if len(below) else 1
