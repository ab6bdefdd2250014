"""When the tokens of many operations arrived, as columns. Pure.

All that latencies are computed from is gathered in one pass, because times of tokens may have to be read from a journal
on disk, and as Python numbers they would take gigabytes.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from harness.history import Ended, Operation, Outcome
from harness.memo import once

Seconds = npt.NDArray[np.float64]
"""One-dimensional."""
Whole = npt.NDArray[np.int64]
"""The same of whole numbers."""


@dataclass(frozen=True, eq=False)
class Arrivals:
    """One item per operation in each column but ``itl``. Times are on the clock of the history."""

    due: Seconds
    sent: Seconds
    first: Seconds
    """Arrival of the first token; NaN if nothing was streamed."""
    last: Seconds
    """When the answer had arrived: its last token, or the whole body if nothing was streamed."""
    tokens: Whole
    """Streamed tokens of the first choice."""
    ends: Whole
    """Where the operation's latencies end in ``itl``, and the next one's begin."""
    itl: Seconds
    """Between consecutive tokens, operation after operation."""

    @property
    def streamed(self) -> npt.NDArray[np.bool_]:
        """Whether anything was streamed."""
        return self.tokens > 0

    @property
    def tpot(self) -> Seconds:
        """Mean seconds per token after the first, of the operations that have any."""
        some = self.tokens > 1
        mean: Seconds = (self.last[some] - self.first[some]) / (self.tokens[some] - 1)
        return mean

    def itls(self) -> list[Seconds]:
        """The inter-token latencies of each operation."""
        return [self.itl[start:end] for start, end in pairwise((0, *self.ends.tolist()))]

    def at(self, places: Whole) -> "Arrivals":
        """The operations at these places, in this order."""
        lengths = np.diff(self.ends, prepend=0)
        kept = lengths[places]
        ends = np.cumsum(kept)
        inside = np.arange(kept.sum()) + np.repeat((self.ends - lengths)[places] - (ends - kept), kept)
        due, sent, first, last = self.due[places], self.sent[places], self.first[places], self.last[places]
        return Arrivals(due, sent, first, last, self.tokens[places], ends, self.itl[inside])


@once
def arrivals_of(operations: tuple[Operation, ...]) -> Arrivals:
    """The arrivals of those operations that ended OK, in the given order."""
    times, numbers, itl = array("d"), array("q"), array("d")
    for operation in operations:
        if operation.outcome is Outcome.OK:
            sent, ended = operation.sent, operation.ended
            arrived = ended.token_times
            first, last = (arrived[0], arrived[-1]) if arrived else (np.nan, ended.at)
            itl.extend(inter_token_latencies(ended))
            times.extend((sent.intended_at, sent.at, first, last))
            numbers.extend((len(arrived), len(itl)))
    due, at, firsts, lasts = np.array(times).reshape(-1, 4).T.copy()
    tokens, ends = np.array(numbers).reshape(-1, 2).T.copy()
    return Arrivals(due, at, firsts, lasts, tokens, ends, np.array(itl))


def inter_token_latencies(ended: Ended) -> list[float]:
    """Seconds between the first choice's tokens, one fewer than tokens; see rule 3 of ``statistics``."""
    chunks = list(_chunks(ended))
    if not chunks:
        return []
    latencies = [0.0] * (chunks[0][1] - 1)
    for (before, _), (at, tokens) in pairwise(chunks):
        latencies += [(at - before) / tokens] * tokens
    return latencies


def _chunks(ended: Ended) -> Iterator[tuple[float, int]]:
    times, sizes = ended.token_times, ended.tokens_per_chunk
    return ((times[end - 1], tokens) for end, tokens in zip(accumulate(sizes), sizes, strict=True))


def time_per_output_token(ended: Ended) -> float | None:
    """TPOT in seconds; None for fewer than two tokens."""
    times = ended.token_times
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None


def last_arrival(ended: Ended) -> float:
    """When the answer had arrived: its last token, or the whole body if nothing was streamed."""
    return ended.token_times[-1] if ended.token_times else ended.at
