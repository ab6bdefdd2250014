"""One request as a bar of several segments. Pure.

The proxy reports how long it took itself and how long the prefill server took; these are drawn one after the other from
the sending on. The rest of the time to the first token is one segment: nobody reported how much of it was the transfer.
If the proxy reported nothing, all of it is one segment.
"""

from collections.abc import Iterator
from typing import Any

from harness.history import Ending, Outcome
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import BLUE, GREY, ORANGE, PURPLE, RED, TEAL, YELLOW, at_second
from harness.reports.requests import OutputStatus, RequestRow
from harness.reports.text import clean

WAITING, PROXY, PREFILL = "waiting to be sent", "proxy", "prefill server"
REST, UNSPLIT = "transfer, first decode step", "to first token"
TOKENS, WHOLE, NOTHING = "tokens", "to the whole answer", "without an answer"
SEGMENTS = {
    WAITING: YELLOW,
    PROXY: PURPLE,
    PREFILL: ORANGE,
    REST: TEAL,
    UNSPLIT: TEAL,
    TOKENS: BLUE,
    WHOLE: BLUE,
    NOTHING: GREY,
}
"""Segments of a bar in the order of time, with their colours. Of those of one colour, a bar has one at most."""

WRONG, DOUBTFUL, FAILED, UNVERIFIED = "wrong output", "doubtful output", "failed", "verification failed"
SHAPES = {WRONG: "cross", DOUBTFUL: "triangle-up", FAILED: "square", UNVERIFIED: "diamond"}
"""Marks of requests with which something is wrong, the gravest first."""
COLOURS = {WRONG: RED, DOUBTFUL: ORANGE, FAILED: PURPLE, UNVERIFIED: GREY}
_OF_OUTPUT = {OutputStatus.DOUBTFUL: DOUBTFUL, OutputStatus.UNVERIFIED: UNVERIFIED}


def mark_of(row: RequestRow) -> str:
    """What is wrong with a request; empty if nothing is."""
    if row.output is OutputStatus.WRONG:
        return WRONG
    if row.outcome is not Outcome.OK and row.ending is not Ending.LEFT:
        return FAILED
    return _OF_OUTPUT.get(row.output, "")


def segments(row: RequestRow) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end of each segment, without empty ones; seconds on the run's clock."""
    streamed = row.first_token is not None
    until = row.ended if row.first_token is None else row.first_token
    moments = [(WAITING, row.due), *_before_first(row, until)]
    moments += [(TOKENS, until)] if streamed else []
    ends = [at for _, at in moments[1:]] + [row.ended]
    return ((name, begin, end) for (name, begin), end in zip(moments, ends, strict=True) if end > begin)


def _before_first(row: RequestRow, until: float) -> Iterator[tuple[str, float]]:
    """Names and begins of the segments from the sending on; ``until``: when they end."""
    reported = row.proxy_seconds is not None and row.prefill_seconds is not None
    if row.proxy_seconds is None or row.prefill_seconds is None:
        yield _last(row, reported=False), row.sent
        return
    # The proxy's clock is another one: its parts must not reach beyond the first token.
    asked = min(row.sent + row.proxy_seconds, until)
    yield PROXY, row.sent
    yield PREFILL, asked
    yield _last(row, reported=reported), min(asked + row.prefill_seconds, until)


def _last(row: RequestRow, *, reported: bool) -> str:
    """What the request was waiting for before its first token."""
    if row.first_token is not None:
        return REST if reported else UNSPLIT
    return WHOLE if row.outcome is Outcome.OK else NOTHING


_NUMBERS = {name: number for number, name in enumerate(SEGMENTS)}


def bar(run: MeasuredRun, lane: int, place: int) -> dict[str, Any]:
    """The request as a row of the chart's data; short names, since they are repeated in each row."""
    row = run.rows[place]
    parts = list(segments(row))
    servers = [name for name in (row.prefill_server, row.decode_server) if name]
    made: dict[str, Any] = {
        "i": lane,
        "r": clean(row.request_id, 60),
        "k": [_NUMBERS[name] for name, _, _ in parts],
        "a": [at_second(begin - run.origin) for _, begin, _ in parts],
        "b": [at_second(end - run.origin) for _, _, end in parts],
        "e": at_second(row.ended - run.origin),
        "o": row.output.value,
    }
    if row.ttft is not None:
        made["f"] = round(1000 * row.ttft, 1)
    if servers:
        made["v"] = clean(" → ".join(servers), 80)
    if mark := mark_of(row):
        made |= {"m": mark, "w": clean(row.why or row.cause, 90)}
    return made
