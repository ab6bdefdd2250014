"""What all tokens of an output show together, and how far that reaches in outputs of nothing but noise.

Wrong KV moves every token of an output a little; noise moves few of them much. So an output is judged by an average as
well, the root mean square over its tokens *without the largest*, one and one more for each 24 tokens: what a single
token does is judged by itself, and an average that one token can raise has a tail as heavy as that token's, behind a
body that is narrow because many are averaged, so that the body says nothing of the tail.

Averages over few tokens vary more than averages over many. An output is therefore compared with outputs that were cut
to at most its own length, in steps of a third or less (``_lengths``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile

import numpy as np

from harness.verify.judging.noise import Floats, Indices, far_limit, noise_limit

_TAIL = 0.1
# Share of the outputs whose averages make the tail: averages are few, and their distribution is narrow.
FEWEST_OUTPUTS = 16
"""Of a length, below which a shorter one is compared: an average over more tokens varies less, and is judged too
kindly."""
_TOKENS_PER_LARGEST = 24
FEWEST_TOKENS = 3
"""Tokens below which an output has no average: without the largest, two are left."""


def _lengths() -> Iterator[int]:
    yield from (3, 4, 5, 6)
    base = 8
    while True:
        yield from (base, base * 5 // 4, base * 3 // 2)
        base *= 2


def _lengths_up_to(tokens: int) -> list[int]:
    return list(takewhile(lambda length: length <= tokens, _lengths()))


@cache  # asked of every output, and there are few lengths
def compared_length(tokens: int) -> int | None:
    """The largest step that is no longer than an output of so many tokens; None where it is too short."""
    return max(_lengths_up_to(tokens), default=None)


def average(values: Floats) -> float:
    """The average of one output, in nats; of the values that are known. NaN where they are too few."""
    known = values[np.isfinite(values)]
    return float(_averages(known[None, :])[0]) if len(known) >= FEWEST_TOKENS else math.nan


def _averages(rows: Floats) -> Floats:
    """Of shape (outputs,) for values of shape (outputs, tokens)."""
    left = rows.shape[1] - 1 - rows.shape[1] // _TOKENS_PER_LARGEST
    smallest = np.partition(rows**2, left - 1, axis=1)[:, :left]
    averages: Floats = np.sqrt(smallest.mean(axis=1))
    return averages


@dataclass(frozen=True, slots=True)
class ByOutput:
    """Known values of many outputs, one after the other."""

    values: Floats
    lengths: Indices
    """Values of each output, of shape (outputs,); none is 0."""

    @classmethod
    def of(cls, arrays: Sequence[Floats]) -> "ByOutput":
        """``arrays``: one for each output; what is not known in them is left out."""
        known = [array[np.isfinite(array)] for array in arrays]
        known = [array for array in known if len(array)]
        return cls(np.concatenate([np.empty(0), *known]), np.array([len(array) for array in known], dtype=np.intp))

    @property
    def owners(self) -> Indices:
        """The number of the output that each value is of."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.intp), self.lengths)

    def averages(self, tokens: int) -> Floats:
        """Of the outputs with so many tokens or more, each cut to so many."""
        starts = (np.cumsum(self.lengths) - self.lengths)[self.lengths >= tokens]
        return _averages(self.values[starts[:, None] + np.arange(tokens)])


def near_average_limits(sample: ByOutput, tokens: Sequence[int], alpha: float) -> dict[int, float]:
    """The near limit for each length that outputs of so many ``tokens`` are compared at, in nats."""
    limits: dict[int, float] = {}
    for step, averages in _compared(sample, tokens):
        limit = noise_limit(averages, _judged(tokens), alpha, least=FEWEST_OUTPUTS)
        limits[step] = math.inf if limit is None else limit
    return limits


def far_average_limits(sample: ByOutput, tokens: Sequence[int], alpha: float) -> dict[int, float]:
    """The far limit for each length, likewise."""
    return {
        step: far_limit(averages, _judged(tokens), alpha, part=_TAIL) for step, averages in _compared(sample, tokens)
    }


def _judged(tokens: Sequence[int]) -> int:
    return sum(count >= FEWEST_TOKENS for count in tokens)


def _compared(sample: ByOutput, tokens: Sequence[int]) -> Iterator[tuple[int, Floats]]:
    """For each length, averages to compare with; of a shorter one where the sample has too few outputs of it."""
    for step in sorted({step for count in set(tokens) if (step := compared_length(count)) is not None}):
        for length in reversed(_lengths_up_to(step)):
            averages = sample.averages(length)
            if len(averages) >= FEWEST_OUTPUTS:
                yield step, averages
                break
