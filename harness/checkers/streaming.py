"""Whether streamed answers arrived as they were generated, or were held back and delivered at once.

A proxy that buffers delivers right tokens at wrong times: TTFT becomes E2E. The check is valid if answers arrived in
pieces (token_arrivals.py): at least half of the conclusive answers. An answer that takes no longer than the delays of
the client's event loop is not conclusive: these delays alone may make it arrive at once.

An answer that arrived at once may have been held in a buffer; ``held_back.py`` has the rules by which it was.

An answer that overlapped a fault of the run is never held against the deployment: a throttled link or a stopped process
holds answers back, and hands on afterwards what it held. But if too few others arrived in pieces, the check is unknown.

The check is unknown if every answer arrived at once (there is no pace to compare with), if no stream was asked for, or
if all answers are too short. Only answers of the path under test are judged; the pace is that of all answers.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.checkers.held_back import ABOVE_LAG, FEWEST_HELD, Pace, is_held_back, pace_of
from harness.checkers.token_arrivals import TokenArrivals
from harness.checkers.windows import at_work
from harness.facts import Deployment, Role
from harness.history import ClientHealth, History, Operation, Outcome
from harness.memo import once
from harness.scenario import Purpose, Route
from harness.verdict import Check, Finding, Verdict

FEWEST_TOKENS = 4
"""Tokens of an answer that counts if it arrived at once; fewer may have been generated in one or two steps."""
_MANY_EVENTS = 8
"""Events of an answer that cannot all have been generated at one moment."""
_LISTED = 50
"""Findings kept."""


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
    pace = pace_of((*streams, *others), lag)

    def flows(stream: TokenArrivals) -> bool:
        return stream.in_pieces and not stream.hasty(pace.seconds_per_token)

    pieces = tuple(filter(flows, streams))
    return _Seen(
        asked=len(tested),
        whole=whole[True],
        streams=streams,
        pieces=pieces,
        held=tuple(one for one in streams if is_held_back(one, pace) and not any(at_work(history, one.operation))),
        conclusive=len(pieces) + sum(_outlasts_lag(one, pace) for one in streams if not flows(one)),
    )


def conclusive_streams(deployment: Deployment, history: History) -> int:
    """Number of streamed answers that can show whether they arrived as they were generated."""
    return _seen(deployment, history).conclusive


def _outlasts_lag(stream: TokenArrivals, pace: Pace) -> bool:
    """Whether generating the answer takes longer than the client's own delays."""
    if pace.seconds_per_token:
        return stream.tokens >= FEWEST_HELD and pace.quickest * (stream.tokens - 1) > ABOVE_LAG * pace.lag
    # There is no pace, but the engine cannot have made so many steps at one moment.
    return stream.events >= _MANY_EVENTS and stream.duration > ABOVE_LAG * pace.lag


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
