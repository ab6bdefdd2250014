"""An average error over the tokens of one output, and the limits of noise for it.

Wrong KV moves every token of an output a little; noise moves a few tokens much. So an output is compared by an average
as well: the root mean square over its tokens *without the largest values* (one, and one more for each 24 tokens). The
limits for single tokens cover the largest values. If the average included them, it would have a tail as heavy as that
of a single token, but a body narrowed by averaging, from which the tail cannot be predicted.

Averages over few tokens vary more than averages over many. So an output is compared with outputs that are truncated to
its own length or less, in steps of a third or less (``_lengths``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile

import numpy as np

from harness.verify.judging.noise import Floats, Indices, far_limit, near_limit

_TAIL = 0.1
"""Share of the averages that is their tail: averages are few, and their distribution is narrow."""
_MIN_OUTPUTS = 16
"""Outputs of one length that a limit needs. With fewer, outputs are truncated further, and the limit is somewhat too
wide: an average over fewer tokens varies more."""
_TOKENS_PER_LARGEST = 24
_MIN_TOKENS = 3
"""Tokens that an average needs: two are left when the largest is removed."""


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
    """The average of one output over its finite values, in nats; NaN if these are too few."""
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
    """How many values each output has, of shape (outputs,); none is 0."""

    @classmethod
    def of(cls, arrays: Sequence[Floats]) -> "ByOutput":
        """``arrays``: one for each output. Values that are not finite are left out."""
        finite = [array[np.isfinite(array)] for array in arrays]
        finite = [array for array in finite if len(array)]
        return cls(np.concatenate([np.empty(0), *finite]), np.array([len(array) for array in finite], dtype=np.intp))

    @property
    def outputs(self) -> Indices:
        """The number of the output that each value belongs to, of shape (values,)."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.intp), self.lengths)

    def averages(self, tokens: int) -> Floats:
        """The averages of all outputs with ``tokens`` or more tokens, each truncated to ``tokens``."""
        starts = (np.cumsum(self.lengths) - self.lengths)[self.lengths >= tokens]
        return _averages(self.values[starts[:, None] + np.arange(tokens)])


def near_average_limits(sample: ByOutput, tokens: Sequence[int], alpha: float) -> dict[int, float]:
    """The near limits of averages, in nats, by compared length. ``tokens``: the number of each tested output."""
    limits: dict[int, float] = {}
    for step, averages in _compared(sample, tokens):
        limit = near_limit(averages, _averaged(tokens), alpha, min_sample=_MIN_OUTPUTS)
        limits[step] = math.inf if limit is None else limit
    return limits


def far_average_limits(sample: ByOutput, tokens: Sequence[int], alpha: float) -> dict[int, float]:
    """The far limits, like ``near_average_limits``."""
    return {
        step: far_limit(averages, _averaged(tokens), alpha, part=_TAIL) for step, averages in _compared(sample, tokens)
    }


def _averaged(tokens: Sequence[int]) -> int:
    """How many outputs have an average."""
    return sum(count >= _MIN_TOKENS for count in tokens)


def _compared(sample: ByOutput, tokens: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """Each compared length with averages of the sample: at this length, or a shorter one that enough outputs have."""
    for step in sorted({step for count in set(tokens) if (step := compared_length(count)) is not None}):
        for length in reversed(_lengths_up_to(step)):
            averages = sample.averages(length)
            if len(averages) >= _MIN_OUTPUTS:
                yield step, averages
                break
