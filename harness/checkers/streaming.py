"""Whether streamed answers arrived as they were generated, or were held back and delivered at once.

A proxy that buffers delivers right tokens at wrong times: TTFT becomes E2E. The check is valid if answers arrived in
pieces (token_arrivals.py): at least half of the conclusive answers. An answer that takes no longer than the delays of
the client's event loop is not conclusive: these delays alone may make it arrive at once.

An answer that arrived at once may have been held in a buffer, or a stall of the client, proxy or server delayed it. A
stall delays all answers, a buffer one. So an answer was held back if all of the following is true:

1. More than half of its tokens, at least eight, arrived in a burst at the end: within a fiftieth of the time that
   generating them takes at the run's pace, and not before that time can have passed.
2. The burst has more tokens than its server puts into one chunk: at least twice the largest chunk of any answer that
   arrived in pieces. (A busy server writes the tokens of several steps as one chunk; vLLM does if its event loop is
   slower than its engine.)
3. Generating the burst takes much longer than the longest delay of the client's event loop, even at the quickest pace
   of its server. (An engine steps several times faster with three requests than with fifty.)
4. During all of that time, tokens of other streams from the same server kept arriving, step by step. (A few arrivals
   are not enough: after a stall, the connections are read one after another. Another server's streams show nothing.)

The server of an answer is known if there is only one, or if the proxy reports it. The rules find no answer of an
unknown server.

The check is unknown if every answer arrived at once (there is no pace to compare with), if no stream was asked for, or
if all answers are too short. Only answers of the path under test are judged; the pace is that of all answers.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import quantiles

import numpy as np

from harness.checkers.token_arrivals import TokenArrivals, any_between
from harness.facts import Deployment, Role
from harness.history import ClientHealth, History, Operation, Outcome
from harness.memo import once
from harness.scenario import Purpose, Route
from harness.verdict import Check, Finding, Verdict

FEWEST_TOKENS = 4
"""Tokens of an answer that counts if it arrived at once; fewer may have been generated in one or two steps."""
FEWEST_HELD = 8
"""Tokens of a burst that shows a buffer. With a hundred concurrent requests for four tokens each on a vLLM pair on two
cores, 11 answers whose four steps took 20 ms arrived at once, because the client itself was 17 ms late."""
_QUICKEST = 0.05
"""The share of a server's answers in pieces that may be quicker than its quickest pace (rule 3)."""
_ABOVE_LAG = 4
"""An answer must take this many times the event loop's longest delay, which may make a shorter one arrive at once. The
event loops of proxy and server may be as busy as the client's."""
_MANY_EVENTS = 8
"""Events of an answer that cannot all have been generated at one moment."""
_LISTED = 50
"""Findings kept."""


@dataclass(frozen=True)
class _Neighbours:
    """All streams of one server."""

    streams: Sequence[TokenArrivals]
    quickest: float
    """Seconds per token at the server's quickest pace; 0 if no stream arrived in pieces."""
    largest_chunk: int
    """Tokens in the largest chunk of a stream that arrived in pieces."""

    @cached_property
    def instants(self) -> Sequence[float]:
        """Arrivals of all tokens; distinct, sorted. Rarely needed, and many: collected at first use."""
        return array("d", np.unique(np.concatenate([np.array(one.times) for one in self.streams])))


@dataclass(frozen=True, slots=True)
class _Pace:
    """The pace at which a run's answers arrive."""

    seconds_per_token: float
    """Upper quartile of the answers in pieces, a few of which may have been held back."""
    quickest: float
    """As :attr:`_Neighbours.quickest`, of all servers together."""
    by_server: Mapping[str, _Neighbours]
    """Without the streams whose server is unknown."""
    lag: float
    """Longest delay of the client's event loop, seconds."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """How the answers that were to be streamed arrived."""

    asked: int
    """Completed requests that asked for a stream."""
    whole: int
    """Number of these requests that were answered by one body."""
    streams: tuple[TokenArrivals, ...]
    """Answers that are long enough to show whether they arrived in pieces."""
    pieces: tuple[TokenArrivals, ...]
    held: tuple[TokenArrivals, ...]
    conclusive: int
    """Number of ``streams`` that the client's own delays cannot have made arrive at once."""

    @property
    def at_once(self) -> int:
        """Number of answers that arrived at once and are not known to have been held back."""
        return len(self.streams) - len(self.pieces) - len(self.held)


def streaming(deployment: Deployment, history: History) -> Check:
    """Streamed answers arrived in pieces, and none was held back until its end."""
    seen = _seen(deployment, history)
    findings = tuple(Finding(one.request_id, _text(one), request=one.request_id) for one in seen.held[:_LISTED])
    return Check("streaming", _verdict(seen), _summary(seen), findings=findings)


@once
def _seen(deployment: Deployment, history: History) -> _Seen:
    answered = (one for one in history.operations() if one.outcome is Outcome.OK and one.request.stream)
    asked = [one for one in answered if one.request.purpose is not Purpose.SALT_TEST]
    tested = [one for one in asked if one.request.route is Route.PROXY] or asked
    direct = [one for one in asked if one.request.route is not Route.PROXY] if tested is not asked else []
    whole = Counter[bool]()
    streams, others = tuple(_arrivals(deployment, tested, whole)), tuple(_arrivals(deployment, direct, Counter()))
    # A run that was killed has no record of the event loop's lag, which may have been of any length.
    lag = max((one.worst_loop_lag for one in history.of(ClientHealth)), default=math.inf)
    pace = _pace((*streams, *others), lag)

    def flows(stream: TokenArrivals) -> bool:
        return stream.in_pieces and not stream.hasty(pace.seconds_per_token)

    pieces = tuple(filter(flows, streams))
    return _Seen(
        asked=len(tested),
        whole=whole[True],
        streams=streams,
        pieces=pieces,
        held=tuple(one for one in streams if _is_held_back(one, pace)),
        conclusive=len(pieces) + sum(_outlasts_lag(one, pace) for one in streams if not flows(one)),
    )


def conclusive_streams(deployment: Deployment, history: History) -> int:
    """Number of streamed answers that can show whether they arrived as they were generated."""
    return _seen(deployment, history).conclusive


def _outlasts_lag(stream: TokenArrivals, pace: _Pace) -> bool:
    """Whether generating the answer takes longer than the client's own delays."""
    if pace.seconds_per_token:
        return stream.tokens >= FEWEST_HELD and pace.quickest * (stream.tokens - 1) > _ABOVE_LAG * pace.lag
    # There is no pace, but the engine cannot have made so many steps at one moment.
    return stream.events >= _MANY_EVENTS and stream.duration > _ABOVE_LAG * pace.lag


def _arrivals(deployment: Deployment, operations: Iterable[Operation], whole: Counter[bool]) -> Iterable[TokenArrivals]:
    """Answers of two or three tokens count if their tokens arrived one by one. ``whole``: counts answers in one body.

    Both are found in one pass: the times of an answer are read from the journal.
    """
    for operation in operations:
        whole[_is_whole(operation)] += 1
        if len(operation.ended.token_times) > 1:
            arrivals = TokenArrivals.of(operation, _server(deployment, operation))
            if arrivals.tokens >= FEWEST_TOKENS or arrivals.in_pieces:
                yield arrivals


def _is_whole(operation: Operation) -> bool:
    return not operation.ended.token_times and bool(operation.ended.choices)


def _server(deployment: Deployment, operation: Operation) -> str:
    """A name of the process that generated the answer; empty if unknown, as with several engines behind one URL."""
    request, decode = operation.request, deployment.of(Role.DECODE)
    if request.route is Route.PREFILL:
        return "prefill" if len(deployment.of(Role.PREFILL)) == 1 else ""
    if any(server.engines > 1 for server in decode):
        return ""
    return "decode" if len(decode) == 1 else operation.ended.decode_server or ""


def _pace(streams: Sequence[TokenArrivals], lag: float) -> _Pace:
    per_token = [one.seconds_per_token for one in streams if one.in_pieces]
    upper = quantiles(per_token, n=4, method="inclusive")[2] if len(per_token) > 1 else max(per_token, default=0.0)
    by_server: dict[str, list[TokenArrivals]] = {}
    for stream in streams:
        by_server.setdefault(stream.server, []).append(stream)
    neighbours = {server: _neighbours(own) for server, own in by_server.items() if server}
    return _Pace(upper, _quickest(per_token), neighbours, lag)


def _neighbours(streams: Sequence[TokenArrivals]) -> _Neighbours:
    pieces = [one for one in streams if one.in_pieces]
    largest = max((one.largest_event for one in pieces), default=1)
    return _Neighbours(streams, _quickest([one.seconds_per_token for one in pieces]), largest)


def _quickest(per_token: Iterable[float]) -> float:
    ordered = sorted(per_token)
    return ordered[int(len(ordered) * _QUICKEST)] if ordered else 0.0


def _is_held_back(stream: TokenArrivals, pace: _Pace) -> bool:
    """Rules 1 to 4."""
    neighbours = pace.by_server.get(stream.server)
    if neighbours is None or not stream.ends_in_burst(pace.seconds_per_token):
        return False
    burst = stream.last_burst(pace.seconds_per_token)
    takes, at = pace.seconds_per_token * (burst - 1), stream.times[-burst]
    if burst < max(FEWEST_HELD, 2 * neighbours.largest_chunk):
        return False
    if neighbours.quickest * (burst - 1) <= _ABOVE_LAG * pace.lag or takes > at - stream.sent_at:
        return False
    # Each interval is the time of two tokens: tokens of neighbours may arrive just on the borders.
    steps = max(int((burst - 1) // (2 * neighbours.largest_chunk)), 1)
    borders = [at - takes * step / steps for step in range(steps + 1)]
    return all(any_between(neighbours.instants, end, start) for start, end in pairwise(borders))


def _verdict(seen: _Seen) -> Verdict:
    if seen.held:
        return Verdict.INVALID
    enough = seen.pieces and 2 * len(seen.pieces) >= seen.conclusive and not seen.whole
    return Verdict.VALID if enough else Verdict.UNKNOWN


def _text(stream: TokenArrivals) -> str:
    return (
        f"most of its {stream.tokens} tokens arrived at once, while tokens of other answers arrived one by one: the "
        "answer was held back until its end"
    )


def _summary(seen: _Seen) -> str:
    if not seen.asked:
        return "no request that completed asked for a streamed answer"
    whole = f"{seen.whole:,} of {seen.asked:,} answers arrived as one body, although a stream was asked for"
    parts = [whole] if seen.whole else []
    if not seen.streams:
        return "; ".join([*parts, f"no answer of {FEWEST_TOKENS} tokens or more was streamed"])
    parts.append(f"{len(seen.pieces):,} of {len(seen.streams):,} streamed answers arrived in pieces")
    if seen.held:
        parts.append(f"{len(seen.held):,} were held back until their end")
    if seen.at_once:
        parts.append(f"{seen.at_once:,} arrived at once, for a reason that cannot be determined")
    if not seen.pieces and len(seen.streams) > 1:
        parts.append("something between the client and the servers may hold all answers back until their end")
    return "; ".join(parts)
