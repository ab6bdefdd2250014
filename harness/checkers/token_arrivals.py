"""When the tokens of one streamed answer arrived, compared with the time that generating them takes.

An *event* is one chunk of the stream as the server wrote it, with one or several tokens (speculative decoding, a stream
interval). A server writes an event after an engine step. No engine makes steps less than half a millisecond apart, so
such events form one *group*: they were held somewhere, and then sent on or read together.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from harness.history import Operation

QUICKEST_STEP = 0.0005
"""Seconds. A step of a real engine takes a millisecond at least."""
_HASTY = 10
"""Tokens that arrive this many times faster than the run's pace were not generated so quickly, but held back."""
_BURST = 50
"""A burst is shorter than the time to generate the answer divided by this number."""


@dataclass(frozen=True, slots=True)
class TokenArrivals:
    """The arrivals of one answer."""

    request_id: str
    sent_at: float
    times: tuple[float, ...]
    """Arrival of each token."""
    events: int
    groups: tuple[int, ...]
    """Number of events in each group."""
    largest_event: int
    """Number of tokens in the largest event."""
    server: str = ""
    """The server that generated the answer; empty if unknown."""

    @classmethod
    def of(cls, operation: Operation, server: str = "") -> "TokenArrivals":
        """The arrivals of an operation whose answer was streamed, so that at least one token arrived."""
        times, chunks = operation.ended.token_times, operation.ended.tokens_per_chunk or (1,)
        # If the chunks do not add up to the tokens, each token counts as one event.
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
        """Number of tokens."""
        return len(self.times)

    @property
    def spread(self) -> float:
        """Seconds from the first to the last arrival."""
        return self.times[-1] - self.times[0]

    @property
    def seconds_per_token(self) -> float:
        """Average seconds from one arrival to the next; there are at least two."""
        return self.spread / (self.tokens - 1)

    @property
    def duration(self) -> float:
        """Seconds from sending the request to the last arrival."""
        return self.times[-1] - self.sent_at

    @property
    def in_pieces(self) -> bool:
        """Whether the events arrived one by one, or nearly so; judged by this answer alone.

        Up to three events: each must have arrived by itself. More events: there must be a third as many groups, and no
        group may hold more than half of the events (a busy client reads a few events together); or, if a stall made a
        large group, at least three events must have arrived one by one after it.
        """
        if self.events <= 3:
            return 1 < len(self.groups) == self.events
        largest = max(self.groups)
        after = self.groups[self.groups.index(largest) + 1 :]
        return (len(self.groups) >= max(3, self.events / 3) and largest <= self.events / 2) or (
            len(after) >= 3 and max(after) == 1
        )

    def hasty(self, seconds_per_token: float) -> bool:
        """Whether the tokens arrived much faster than this pace, after enough time to generate them at this pace."""
        takes = seconds_per_token * (self.tokens - 1)
        return self.spread * _HASTY < takes <= self.duration

    def last_burst(self, seconds_per_token: float) -> int:
        """Number of tokens in the burst at the end, if tokens are generated at this pace."""
        window = max(seconds_per_token * (self.tokens - 1) / _BURST, 0.0)
        return self.tokens - bisect_left(self.times, self.times[-1] - window)


def _groups(instants: Sequence[float]) -> tuple[int, ...]:
    """Number of events in each group."""
    sizes = [1]
    for before, after in pairwise(instants):
        if after - before < QUICKEST_STEP:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return tuple(sizes)


def any_between(instants: Sequence[float], start: float, end: float) -> bool:
    """Whether one of the sorted ``instants`` lies between start and end, both excluded."""
    return bisect_left(instants, end) > bisect_right(instants, start)
