"""Whether streamed answers came as they were made, or were held back and delivered in one piece.

A proxy that buffers gives every token right and every latency wrong: TTFT becomes E2E. ``valid`` needs to have seen
answers come in pieces (token_arrivals.py), half at least of those that can tell: an answer that is made within the
time by which the client's event loop was late may arrive at once by that alone. One that came at once proves nothing by itself.

What tells a buffer from a stall of the client, the proxy or the server is the neighbours: a stall holds everybody up, a
buffer one answer. So an answer is held back if

1. more than half of its tokens, and eight at least, arrived in a burst at its end: within a fiftieth of the time that
   making all of them takes at the pace of this run, and not before that time can have passed,
2. they are more than its server puts into one chunk: twice the largest of any answer that came in pieces. A busy server
   writes what several steps made as one chunk (vLLM does, when its event loop is slower than its engine),
3. making them takes much longer than the client's own event loop is ever late, even at the quickest pace of its server:
   an engine with three requests steps several times faster than the same engine with fifty, and
4. all of that time, token by token, tokens of other streams from the same server arrived. (That some arrived is not
   enough: after a stall all connections are read one after another, at instants that differ. And that another server
   went on says nothing of this one.)

Which server an answer came from is known where there is one, or where the proxy says so; of others nobody can tell.

Where every answer came at once there is no pace to judge any by: that is unknown, and so is a run that asked for no
stream, or whose answers are too short to show one. Judged are the answers of the path under test, beside the pace of
all.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles

from harness.checkers.token_arrivals import TokenArrivals, any_between
from harness.facts import Deployment, Role
from harness.history import ClientHealth, History, Operation, Outcome
from harness.scenario import Purpose, Route
from harness.verdict import Check, Finding, Verdict

FEWEST_TOKENS = 4
"""Of an answer that came at once: fewer may have been made within one step or two."""
FEWEST_HELD = 8
"""Tokens of a burst that shows a buffer. On a vLLM pair on two cores, a hundred requests at once for four tokens each,
11 answers whose four steps took 20 ms came at once, by the client's own delay of 17 ms: too short to tell."""
_QUICKEST = 0.05
"""Which part of a server's answers in pieces are quicker than the pace that a burst is held against."""
_ABOVE_LAG = 4
"""How many times the event loop's longest delay an answer must take: what is shorter may arrive at once by that alone.
The proxy and the server have event loops too, on machines that may be as busy."""
_MANY_EVENTS = 8
"""Events of an answer that cannot all have been made in one moment."""
_LISTED = 50
"""Findings kept: see :mod:`harness.checkers.completion`."""


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """The streams of one server, a stalled one among them or not."""

    quickest: float
    """Seconds per token of those in pieces that came quickest; 0 where none came so."""
    largest_chunk: int
    """Tokens, of any stream in pieces."""
    instants: tuple[float, ...]
    """When any token arrived; distinct, sorted."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """How answers of a run come."""

    seconds_per_token: float
    """That three in four of those in pieces keep to: some that were held back may be among them."""
    quickest: float
    """As :attr:`_Neighbours.quickest`, of all servers together."""
    beside: Mapping[str, _Neighbours]
    """By server; without the streams of which the server is not known."""
    lag: float
    """Longest delay of the client's event loop, seconds."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the answers that were to be streamed came to."""

    asked: int
    """Completed requests that asked for a stream."""
    whole: int
    """Of these, the ones that were answered by one body."""
    streams: tuple[TokenArrivals, ...]
    """Those that can show whether they came in pieces."""
    pieces: tuple[TokenArrivals, ...]
    held: tuple[TokenArrivals, ...]
    telling: int
    """How many of ``streams`` would have come in pieces if nothing but the client's own delays had held them up."""

    @property
    def untold(self) -> int:
        """Those that came at once, for whatever reason."""
        return len(self.streams) - len(self.pieces) - len(self.held)


def streaming(deployment: Deployment, history: History) -> Check:
    """Streamed answers came in pieces, and none was held back until its end."""
    seen = _look(deployment, history)
    findings = tuple(Finding(one.request_id, _text(one), request=one.request_id) for one in seen.held[:_LISTED])
    return Check("streaming", _verdict(seen), _summary(seen), findings=findings)


def _look(deployment: Deployment, history: History) -> _Seen:
    answered = (
        one
        for one in history.operations()
        if one.outcome is Outcome.OK and one.request.purpose is not Purpose.SALT_TEST
    )
    asked = [one for one in answered if one.request.stream]
    tested = [one for one in asked if one.request.route is Route.PROXY] or asked
    beside = [one for one in asked if one.request.route is not Route.PROXY] if tested is not asked else []
    streams, others = tuple(_arrivals(deployment, tested)), tuple(_arrivals(deployment, beside))
    # Where the lag was not recorded, as in a run that was killed, anything may have been late by it.
    lag = max((one.worst_loop_lag for one in history.of(ClientHealth)), default=math.inf)
    pace = _pace((*streams, *others), lag)

    def flows(stream: TokenArrivals) -> bool:
        return stream.in_pieces and not stream.hasty(pace.seconds_per_token)

    pieces = tuple(filter(flows, streams))
    return _Seen(
        asked=len(tested),
        whole=sum(_is_whole(one) for one in tested),
        streams=streams,
        pieces=pieces,
        held=tuple(one for one in streams if _kept_flowing(one, pace)),
        telling=len(pieces) + sum(_outlasts_lag(one, pace) for one in streams if not flows(one)),
    )


def streams_that_tell(deployment: Deployment, history: History) -> int:
    """How many streamed answers are there from which it can be told whether they came as they were made."""
    return _look(deployment, history).telling


def _outlasts_lag(stream: TokenArrivals, pace: _Pace) -> bool:
    """Whether making it takes longer than the client's own delays, at this run's pace; else it may come at once."""
    if pace.seconds_per_token:
        return stream.tokens >= FEWEST_HELD and pace.quickest * (stream.tokens - 1) > _ABOVE_LAG * pace.lag
    # Nothing shows how long it took to be made, but that many steps of an engine are more than one moment.
    return stream.events >= _MANY_EVENTS and stream.duration > _ABOVE_LAG * pace.lag


def _arrivals(deployment: Deployment, operations: Iterable[Operation]) -> Iterable[TokenArrivals]:
    """Those of an answer of two or three tokens count where they came one by one."""
    for operation in operations:
        if len(operation.ended.token_times) > 1:
            arrivals = TokenArrivals.of(operation, _server(deployment, operation))
            if arrivals.tokens >= FEWEST_TOKENS or arrivals.in_pieces:
                yield arrivals


def _is_whole(operation: Operation) -> bool:
    return not operation.ended.token_times and bool(operation.ended.choices)


def _server(deployment: Deployment, operation: Operation) -> str:
    """Which process made the answer, as far as is known: several engines behind one URL are not told apart."""
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
    beside = {server: _neighbours(own) for server, own in by_server.items() if server}
    return _Pace(upper, _quickest(per_token), beside, lag)


def _neighbours(streams: Sequence[TokenArrivals]) -> _Neighbours:
    pieces = [one for one in streams if one.in_pieces]
    instants = sorted({time for one in streams for time in one.times})
    largest = max((one.largest_event for one in pieces), default=1)
    return _Neighbours(_quickest([one.seconds_per_token for one in pieces]), largest, tuple(instants))


def _quickest(per_token: Iterable[float]) -> float:
    ordered = sorted(per_token)
    return ordered[int(len(ordered) * _QUICKEST)] if ordered else 0.0


def _kept_flowing(stream: TokenArrivals, pace: _Pace) -> bool:
    """Whether it was alone in waiting (rules 1 to 4)."""
    beside = pace.beside.get(stream.server)
    if beside is None:
        return False
    burst = stream.last_burst(pace.seconds_per_token)
    takes, at = pace.seconds_per_token * (burst - 1), stream.times[-burst]
    if burst * 2 <= stream.tokens or burst < max(FEWEST_HELD, 2 * beside.largest_chunk):
        return False
    if beside.quickest * (burst - 1) <= _ABOVE_LAG * pace.lag or takes > at - stream.sent_at:
        return False
    # Two tokens' time each: neighbours that keep step with it arrive on the borders.
    steps = max(int((burst - 1) // (2 * beside.largest_chunk)), 1)
    borders = [at - takes * step / steps for step in range(steps + 1)]
    return all(any_between(beside.instants, end, start) for start, end in pairwise(borders))


def _verdict(seen: _Seen) -> Verdict:
    if seen.held:
        return Verdict.INVALID
    enough = seen.pieces and 2 * len(seen.pieces) >= seen.telling and not seen.whole
    return Verdict.VALID if enough else Verdict.UNKNOWN


def _text(stream: TokenArrivals) -> str:
    return (
        f"most of its {stream.tokens} tokens arrived at one instant, while other answers' kept arriving one by one: it "
        "was held back until its end"
    )


def _summary(seen: _Seen) -> str:
    if not seen.asked:
        return "no request that completed asked for a streamed answer"
    words = (
        [f"{seen.whole:,} of {seen.asked:,} answers were one body, where a stream was asked for"] if seen.whole else []
    )
    if not seen.streams:
        return "; ".join([*words, f"no answer of {FEWEST_TOKENS} tokens or more was streamed"])
    words.append(f"{len(seen.pieces):,} of {len(seen.streams):,} streamed answers came in pieces")
    if seen.held:
        words.append(f"{len(seen.held):,} were held back until their end")
    if seen.untold:
        words.append(f"{seen.untold:,} came at once, with too little beside them to tell why")
    if not seen.pieces and len(seen.streams) > 1:
        words.append("something between here and the servers may hold all answers back until their end")
    return "; ".join(words)
