"""Whether streamed answers came as they were made, or were held back and delivered in one piece.

A proxy that buffers gives every token right and every latency wrong: TTFT becomes E2E. What tells it from a stall of
the client, the proxy or the server is the neighbours: a stall holds everybody up, a buffer one answer. So an answer is
held back if

1. all of its tokens arrived at one instant,
2. they are more than a server puts into one chunk (twice the largest that most streams have, and four at least),
3. making them takes, at the usual pace of this run, much longer than the client's own event loop is ever late, and
4. all of that time, token by token, other streams' tokens arrived. (That some arrived is not enough: after a stall all
   connections are read one after another, at instants that differ.)

An answer that came in pieces is proof by itself. One that came at once and had no neighbours proves nothing and is only
counted. Where no answer was streamed none was held back.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from harness.facts import Deployment
from harness.history import ClientHealth, History, Operation, Outcome
from harness.verdict import Check, Finding, Verdict

FEWEST_TOKENS = 4
_ABOVE_LAG = 4
"""How many times the event loop's longest delay an answer must take: what is shorter may arrive at once by that alone.
The proxy and the server have event loops too, on machines that may be as busy."""
_LISTED = 50
"""Findings kept: see :mod:`harness.checkers.completion`."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """How answers of a run come."""

    seconds_per_token: float
    chunk: float
    """Tokens of the largest chunk of the median stream."""
    instants: tuple[float, ...]
    """When any token arrived; distinct, sorted."""
    lag: float
    """Longest delay of the client's event loop, seconds."""


def streaming(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """No streamed answer was held back until its end."""
    streams = [o for o in history.operations() if o.outcome is Outcome.OK and len(o.ended.token_times) >= FEWEST_TOKENS]
    pieces = [stream for stream in streams if not _at_once(stream)]
    # Where the lag was not recorded, as in a run that was killed, anything may have been late by it.
    pace = _pace(streams, pieces, max((one.worst_loop_lag for one in history.of(ClientHealth)), default=math.inf))
    held = [stream for stream in streams if _at_once(stream) and _kept_flowing(stream, pace)]
    findings = tuple(Finding(stream.request.request_id, _text(stream)) for stream in held[:_LISTED])
    verdict = _verdict(len(streams), len(pieces), len(held))
    return Check("streaming", verdict, _summary(len(streams), len(pieces), len(held)), findings=findings)


def _at_once(stream: Operation) -> bool:
    return stream.ended.token_times[0] == stream.ended.token_times[-1]


def _pace(streams: Sequence[Operation], pieces: Sequence[Operation], lag: float) -> _Pace:
    per_token = [_spread(stream) / (len(stream.ended.token_times) - 1) for stream in pieces]
    chunks = [max(stream.ended.tokens_per_chunk, default=1) for stream in pieces]
    instants = sorted({time for stream in streams for time in stream.ended.token_times})
    return _Pace(median(per_token or [0.0]), median(chunks or [1]), tuple(instants), lag)


def _spread(stream: Operation) -> float:
    return stream.ended.token_times[-1] - stream.ended.token_times[0]


def _kept_flowing(stream: Operation, pace: _Pace) -> bool:
    """Whether it was alone in waiting (rules 2 to 4)."""
    tokens, at = len(stream.ended.token_times), stream.ended.token_times[-1]
    takes = pace.seconds_per_token * (tokens - 1)
    if tokens < 2 * pace.chunk or takes <= _ABOVE_LAG * pace.lag:
        return False
    # Two tokens' time each: neighbours that keep step with it arrive on the borders.
    steps = max(int((tokens - 1) // (2 * pace.chunk)), 1)
    borders = [at - takes * step / steps for step in range(steps + 1)]
    return all(_any_between(pace.instants, start, end) for end, start in pairwise(borders))


def _any_between(instants: Sequence[float], start: float, end: float) -> bool:
    """Start and end excluded."""
    return bisect_left(instants, end) > bisect_right(instants, start)


def _verdict(streams: int, pieces: int, held: int) -> Verdict:
    if held:
        return Verdict.INVALID
    return Verdict.UNKNOWN if streams and not pieces else Verdict.VALID


def _text(stream: Operation) -> str:
    return (
        f"its {len(stream.ended.token_times)} tokens arrived at one instant, while other answers' kept arriving one by "
        "one: it was held back until its end"
    )


def _summary(streams: int, pieces: int, held: int) -> str:
    if not streams:
        return f"no answer of {FEWEST_TOKENS} tokens or more was streamed"
    line = f"{pieces:,} of {streams:,} streamed answers came in pieces"
    if held:
        line += f"; {held:,} were held back until their end"
    if untold := streams - pieces - held:
        line += f"; {untold:,} came at once, with too little beside them to tell why"
    return line
