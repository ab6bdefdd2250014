"""Whether an answer was held in a buffer until its end.

An answer that arrived at once may have been held in a buffer, or a stall of the client, proxy or server delayed it. A
stall delays all answers, a buffer one. So an answer was held back if all of the following is true:

1. More than half of its tokens, at least eight, arrived in a burst at the end: within a fiftieth of the time that
   generating them takes at the run's pace, and not before that time can have passed.
2. The burst has more tokens than its server puts into one chunk: at least twice the largest chunk of any answer that
   arrived in pieces. (A busy server writes the tokens of several steps as one chunk; vLLM does if its event loop is
   slower than its engine.)
3. Generating the burst takes much longer than the longest delay of the client's event loop, even at the quickest pace
   of its server. (An engine steps several times faster with three requests than with fifty.) If some of the answer's
   tokens arrived before, it also takes longer than TCP may hold what follows them.
4. During all of that time, tokens of other answers from the same server kept arriving, step by step, and these answers
   arrived in pieces. (A few arrivals are not enough: after a stall, the connections are read one after another. Another
   server's streams show nothing.)
5. At least a quarter of the answers of its server arrived in pieces. (Where nearly all arrive at once, the engine may
   be that quick, and those in pieces are the exceptions: the first ones, sent together, beside others sent one by one.)

The server of an answer is known if there is only one, or if the proxy reports it. The rules find no answer of an
unknown server.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import quantiles

import numpy as np

from harness.checkers.token_arrivals import TokenArrivals, any_between

FEWEST_HELD = 8
"""Tokens of a burst that shows a buffer. With a hundred concurrent requests for four tokens each on a vLLM pair on two
cores, 11 answers whose four steps took 20 ms arrived at once, because the client itself was 17 ms late."""
_QUICKEST = 0.05
"""The share of a server's answers in pieces that may be quicker than its quickest pace (rule 3)."""
_FEWEST_FLOWING = 0.25
"""The share of a server's answers in pieces by which the pace of all of them can be told."""
_TCP_S = 0.25
"""Seconds. A small piece may wait for the acknowledgement of the one before (Nagle), which may be delayed by 40 ms on
Linux and 200 ms elsewhere (RFC 1122 allows 500); a lost segment is sent again after 200 ms (Linux)."""
ABOVE_LAG = 4
"""An answer must take this many times the event loop's longest delay, which may make a shorter one arrive at once. The
event loops of proxy and server may be as busy as the client's."""


@dataclass(frozen=True)
class Neighbours:
    """All streams of one server."""

    streams: Sequence[TokenArrivals]
    quickest: float
    """Seconds per token at the server's quickest pace; 0 if no stream arrived in pieces."""
    largest_chunk: int
    """Tokens in the largest chunk of a stream that arrived in pieces."""
    flowing: float
    """The share of the streams that arrived in pieces."""

    @cached_property
    def instants(self) -> Sequence[float]:
        """Arrivals of the tokens of answers in pieces; distinct, sorted. Rarely needed, many: collected at first use.

        Bursts, one after another, would look like the steps of an engine.
        """
        times = [np.array(one.times) for one in self.streams if one.in_pieces]
        return array("d", np.unique(np.concatenate(times)) if times else ())


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace at which a run's answers arrive."""

    seconds_per_token: float
    """Upper quartile of the answers in pieces, a few of which may have been held back."""
    quickest: float
    """As :attr:`Neighbours.quickest`, of all servers together."""
    by_server: Mapping[str, Neighbours]
    """Without the streams whose server is unknown."""
    lag: float
    """Longest delay of the client's event loop, seconds."""


def pace_of(streams: Sequence[TokenArrivals], lag: float) -> Pace:
    """The pace of a run's answers; ``lag``: the longest delay of the client's event loop, seconds."""
    per_token = [one.seconds_per_token for one in streams if one.in_pieces]
    upper = quantiles(per_token, n=4, method="inclusive")[2] if len(per_token) > 1 else max(per_token, default=0.0)
    by_server: dict[str, list[TokenArrivals]] = {}
    for stream in streams:
        by_server.setdefault(stream.server, []).append(stream)
    neighbours = {server: _neighbours(own) for server, own in by_server.items() if server}
    return Pace(upper, _quickest(per_token), neighbours, lag)


def _neighbours(streams: Sequence[TokenArrivals]) -> Neighbours:
    pieces = [one for one in streams if one.in_pieces]
    largest = max((one.largest_event for one in pieces), default=1)
    return Neighbours(
        streams, _quickest([one.seconds_per_token for one in pieces]), largest, len(pieces) / len(streams)
    )


def _quickest(per_token: Iterable[float]) -> float:
    ordered = sorted(per_token)
    return ordered[int(len(ordered) * _QUICKEST)] if ordered else 0.0


def is_held_back(stream: TokenArrivals, pace: Pace) -> bool:
    """Whether rules 1 to 5 hold for an answer."""
    neighbours = pace.by_server.get(stream.server)
    if neighbours is None or neighbours.flowing < _FEWEST_FLOWING or not stream.ends_in_burst(pace.seconds_per_token):
        return False
    burst = stream.last_burst(pace.seconds_per_token)
    takes, at = pace.seconds_per_token * (burst - 1), stream.times[-burst]
    if burst < max(FEWEST_HELD, 2 * neighbours.largest_chunk):
        return False
    held_by_others = max(ABOVE_LAG * pace.lag, 0.0 if burst == stream.tokens else _TCP_S)
    if neighbours.quickest * (burst - 1) <= held_by_others or takes > at - stream.sent_at:
        return False
    # Each interval is the time of two tokens: tokens of neighbours may arrive just on the borders.
    steps = max(int((burst - 1) // (2 * neighbours.largest_chunk)), 1)
    borders = [at - takes * step / steps for step in range(steps + 1)]
    return all(any_between(neighbours.instants, end, start) for start, end in pairwise(borders))
