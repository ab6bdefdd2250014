"""How the pieces of one streamed answer arrived, beside what making them takes.

An *event* is one chunk of the stream as the server wrote it, with one token or several (speculative decoding, a stream
interval). A server writes it when an engine step is done; events less than half a millisecond apart are no steps of any
engine, and are counted as one *group*: they were waiting somewhere, and were passed on, or read, together.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from harness.history import Operation

QUICKEST_STEP = 0.0005
"""Seconds. Steps of real engines take a millisecond at least."""
_HASTY = 10
"""How many times faster than others' tokens an answer's must arrive to be more than a quick phase of the run."""
_BURST = 50
"""Which part of the time that an answer takes to be made is a burst at its end."""


@dataclass(frozen=True, slots=True)
class TokenArrivals:
    """One answer's."""

    request_id: str
    sent_at: float
    times: tuple[float, ...]
    """Of each token."""
    events: int
    groups: tuple[int, ...]
    """Events in each."""
    largest_event: int
    """Tokens in it."""
    server: str = ""
    """Which one made the answer; empty where that is not known."""

    @classmethod
    def of(cls, operation: Operation, server: str = "") -> "TokenArrivals":
        """Of an operation whose answer was streamed: it has at least one arrival."""
        times, chunks = operation.ended.token_times, operation.ended.tokens_per_chunk or (1,)
        # A history without chunks, or with other ones than there are tokens, is read token by token.
        chunks = chunks if sum(chunks) == len(times) else (1,) * len(times)
        return cls(
            operation.request.request_id,
            operation.sent.at,
            times,
            events=len(chunks),
            groups=_groups([times[after - 1] for after in accumulate(chunks)]),
            largest_event=max(chunks),
            server=server,
        )

    @property
    def tokens(self) -> int:
        """How many arrived."""
        return len(self.times)

    @property
    def spread(self) -> float:
        """From the first to the last, seconds."""
        return self.times[-1] - self.times[0]

    @property
    def seconds_per_token(self) -> float:
        """From one to the next, on average; the answer has two at least."""
        return self.spread / (self.tokens - 1)

    @property
    def duration(self) -> float:
        """From when it was sent, seconds."""
        return self.times[-1] - self.sent_at

    @property
    def in_pieces(self) -> bool:
        """Whether its events came one by one, or nearly so, whatever others did.

        Of three events at most, each must have come by itself. Of more, a third at least, and not half of all at once:
        a busy client reads a few events together. Or, where many came at once after a stall, those that came next.
        """
        if self.events <= 3:
            return 1 < len(self.groups) == self.events
        largest = max(self.groups)
        after = self.groups[self.groups.index(largest) + 1 :]
        return (len(self.groups) >= max(3, self.events / 3) and largest <= self.events / 2) or (
            len(after) >= 3 and max(after) == 1
        )

    def hasty(self, seconds_per_token: float) -> bool:
        """Whether it arrived much faster than its tokens are made at this pace, and took long enough to be so made."""
        takes = seconds_per_token * (self.tokens - 1)
        return self.spread * _HASTY < takes <= self.duration

    def last_burst(self, seconds_per_token: float) -> int:
        """How many of its tokens arrived in an instant, at this pace, at its end."""
        window = max(seconds_per_token * (self.tokens - 1) / _BURST, 0.0)
        return self.tokens - bisect_left(self.times, self.times[-1] - window)


def _groups(instants: Sequence[float]) -> tuple[int, ...]:
    """Events in each group."""
    sizes = [1]
    for before, after in pairwise(instants):
        if after - before < QUICKEST_STEP:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return tuple(sizes)


def any_between(instants: Sequence[float], start: float, end: float) -> bool:
    """Whether one of the sorted ``instants`` lies there; start and end excluded."""
    return bisect_left(instants, end) > bisect_right(instants, start)
