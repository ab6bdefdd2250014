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
    """The arrivals of one answer. The time of each token is left in the history, which may be long."""

    operation: Operation
    server: str
    """The server that generated the answer; empty if unknown."""
    tokens: int
    """Number of tokens."""
    events: int
    largest_event: int
    """Number of tokens in the largest event."""
    first: float
    """The first arrival; on the clock of the history, like all times."""
    median: float
    """The arrival after which fewer than half of the tokens arrived, but with which more than half."""
    last: float
    in_pieces: bool
    """Whether the events arrived one by one, or nearly so (``_in_pieces``)."""

    @classmethod
    def of(cls, operation: Operation, server: str = "") -> "TokenArrivals":
        """The arrivals of an operation whose answer was streamed, so that at least one token arrived."""
        times, chunks = operation.ended.token_times, operation.ended.tokens_per_chunk or (1,)
        # If the chunks do not add up to the tokens, each token counts as one event.
        chunks = chunks if sum(chunks) == len(times) else (1,) * len(times)
        return cls(
            operation,
            server,
            tokens=len(times),
            events=len(chunks),
            largest_event=max(chunks),
            first=times[0],
            median=times[(len(times) - 1) // 2],
            last=times[-1],
            in_pieces=_in_pieces(_groups([times[after - 1] for after in accumulate(chunks)])),
        )

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.operation.request.request_id

    @property
    def sent_at(self) -> float:
        """When the request was sent."""
        return self.operation.sent.at

    @property
    def times(self) -> tuple[float, ...]:
        """Arrival of each token."""
        return self.operation.ended.token_times

    @property
    def spread(self) -> float:
        """Seconds from the first to the last arrival."""
        return self.last - self.first

    @property
    def seconds_per_token(self) -> float:
        """Average seconds from one arrival to the next; there are at least two."""
        return self.spread / (self.tokens - 1)

    @property
    def duration(self) -> float:
        """Seconds from sending the request to the last arrival."""
        return self.last - self.sent_at

    def hasty(self, seconds_per_token: float) -> bool:
        """Whether the tokens arrived much faster than this pace, after enough time to generate them at this pace."""
        takes = seconds_per_token * (self.tokens - 1)
        return self.spread * _HASTY < takes <= self.duration

    def ends_in_burst(self, seconds_per_token: float) -> bool:
        """Whether more than half of the tokens arrived in the burst at the end."""
        return self.median >= self._start_of_burst(seconds_per_token)

    def last_burst(self, seconds_per_token: float) -> int:
        """Number of tokens in the burst at the end, if tokens are generated at this pace."""
        return self.tokens - bisect_left(self.times, self._start_of_burst(seconds_per_token))

    def _start_of_burst(self, seconds_per_token: float) -> float:
        return self.last - max(seconds_per_token * (self.tokens - 1) / _BURST, 0.0)


def _in_pieces(groups: Sequence[int]) -> bool:
    """Whether the events of an answer arrived one by one, or nearly so; judged by this answer alone.

    Up to three events: each must have arrived by itself. More events: there must be a third as many groups, and no
    group may hold more than half of the events (a busy client reads a few events together); or, if a stall made a large
    group, at least three events must have arrived one by one after it. ``groups``: the number of events in each group.
    """
    events = sum(groups)
    if events <= 3:
        return 1 < len(groups) == events
    largest = max(groups)
    after = groups[groups.index(largest) + 1 :]
    return (len(groups) >= max(3, events / 3) and largest <= events / 2) or (len(after) >= 3 and max(after) == 1)


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
