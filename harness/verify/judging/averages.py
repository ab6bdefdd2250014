"""The average error over the tokens of one output, in multiples of the usual error of a token.

Wrong KV moves every token of an output a little; noise moves a few tokens much. So an output is compared by an average
over its tokens: that of their drifts, and that of drifts and margin errors together. (A token that is nearly certain
has a small drift and a large margin error; where noise comes in large steps, margin errors hide what drifts show.) Each
error is divided by its usual size (``Usual``), so that the result has no unit: an output whose tokens err as usual has
an average of about 1.

The average is the root mean square over the tokens *without the largest values* (one, and one more for each 12 tokens):
a robust mean. The limits for single tokens cover the largest values. If the average included them, it would have a tail
as heavy as that of a single token; without the two largest of 20 values, noise with the tail of Student's t with 3
degrees of freedom has averages whose tail is nearly exponential.

Averages over few tokens vary more than averages over many. So an output is compared with outputs that are truncated to
its own length or less, in steps of a third or less (``_lengths``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import takewhile

import numpy as np

from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import MIN_SAMPLE, Floats, Indices

_TOKENS_PER_LARGEST = 12
_MIN_TOKENS = 3
"""Tokens that an average needs: two are left when the largest is removed."""
_ORDINARY = 0.97
"""Share of the tokens whose errors are ordinary: the largest 3 % may be those of damaged outputs."""


class Kind(StrEnum):
    """Which errors of a token are averaged."""

    DRIFT = "log-probabilities"
    BOTH = "log-probabilities and margins"


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual errors of a token, nats: root mean squares without the largest values."""

    drift: float
    margin_error: float

    @classmethod
    def of(cls, outputs: Sequence[Forced], least: float) -> "Usual":
        """The usual errors in these outputs, at least ``least``."""
        return cls(
            max(_ordinary([one.drift for one in outputs]), least),
            max(_ordinary([one.margin_error for one in outputs]), least),
        )

    def errors(self, forced: Forced, kind: Kind) -> Floats:
        """The error of each token in multiples of the usual one, of shape (tokens,); NaN where no drift is known.

        A token without a margin error (the server named no second-best token) counts by its drift alone.
        """
        drift = forced.drift / self.drift
        if kind is Kind.DRIFT:
            return drift
        margin = forced.margin_error / self.margin_error
        both: Floats = np.sqrt((drift**2 + np.where(np.isfinite(margin), margin, drift) ** 2) / 2)
        return both


def _ordinary(arrays: Sequence[Floats]) -> float:
    together = np.concatenate([np.empty(0), *arrays])
    rising = np.sort(together[np.isfinite(together)])
    ordinary = rising[: math.ceil(_ORDINARY * len(rising))]
    return float(np.sqrt((ordinary**2).mean())) if len(ordinary) else 0.0


def _lengths() -> Iterator[int]:
    """The lengths to which outputs are truncated, in tokens, rising without end."""
    yield from (3, 4, 5, 6)
    base = 8
    while True:
        yield from (base, base * 5 // 4, base * 3 // 2)
        base *= 2


def _lengths_up_to(tokens: int) -> list[int]:
    return list(takewhile(lambda length: length <= tokens, _lengths()))


# Called for every output; there are few lengths.
@cache
def compared_length(tokens: int) -> int | None:
    """The length to which an output of so many tokens is truncated for the comparison; None if it is too short."""
    return max(_lengths_up_to(tokens), default=None)


def average(values: Floats) -> float:
    """The average of one output over its finite values; NaN if these are too few."""
    known = values[np.isfinite(values)]
    return float(_averages(known[None, :])[0]) if len(known) >= _MIN_TOKENS else math.nan


def _averages(rows: Floats) -> Floats:
    """The average of each row: shape (outputs,) for values of shape (outputs, tokens)."""
    left = rows.shape[1] - 1 - rows.shape[1] // _TOKENS_PER_LARGEST
    smallest = np.partition(rows**2, left - 1, axis=1)[:, :left]
    averages: Floats = np.sqrt(smallest.mean(axis=1))
    return averages


@dataclass(frozen=True, slots=True)
class ByOutput:
    """The finite values of many outputs, one output after the other."""

    values: Floats
    lengths: Indices
    """How many values each output has, of shape (outputs,); may be 0."""

    @classmethod
    def of(cls, arrays: Sequence[Floats]) -> "ByOutput":
        """``arrays``: one for each output. Values that are not finite are left out."""
        finite = [array[np.isfinite(array)] for array in arrays]
        return cls(np.concatenate([np.empty(0), *finite]), np.array([len(array) for array in finite], dtype=np.intp))

    @property
    def outputs(self) -> Indices:
        """The number of the output that each value belongs to, of shape (values,)."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.intp), self.lengths)

    def whole_averages(self) -> Floats:
        """The average of each output over all its values, of shape (outputs,); NaN where these are too few."""
        averages = np.full(len(self.lengths), np.nan)
        starts = np.cumsum(self.lengths) - self.lengths
        for count in np.unique(self.lengths[self.lengths >= _MIN_TOKENS]):
            numbers = np.flatnonzero(self.lengths == count)
            averages[numbers] = _averages(self.values[starts[numbers][:, None] + np.arange(count)])
        return averages

    def averages(self, tokens: int) -> tuple[Floats, Indices]:
        """The averages of all outputs with ``tokens`` or more values, each truncated; and their numbers."""
        long_enough = np.flatnonzero(self.lengths >= tokens)
        starts = (np.cumsum(self.lengths) - self.lengths)[long_enough]
        if not len(starts):
            return np.empty(0), long_enough
        return _averages(self.values[starts[:, None] + np.arange(tokens)]), long_enough


def comparable(sample: ByOutput, tokens: int, controls: int = 0) -> tuple[Floats, Indices]:
    """Averages of the sample at a compared length, or a shorter one that enough outputs have; with their numbers.

    Enough are MIN_SAMPLE outputs, and half of the ``controls``, which come first in the sample: they alone are known to
    be noise. With a shorter length the limit is somewhat too wide: an average over fewer tokens varies more.
    """
    for length in reversed(_lengths_up_to(tokens)):
        averages, numbers = sample.averages(length)
        if len(averages) >= MIN_SAMPLE and 2 * int((numbers < controls).sum()) >= controls:
            return averages, numbers
    return np.empty(0), np.empty(0, dtype=np.intp)
