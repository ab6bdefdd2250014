"""Runs made by hand for tests of charts, as large and as odd as a test wants them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.facts import Deployment, Role, Server
from harness.history import (
    Choice,
    Ended,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    Outcome,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Sent,
    Usage,
)
from harness.reports import Report, make_report
from harness.reports.requests import OutputStatus, RequestRow, request_rows
from harness.scenario import Request
from harness.verdict import Bounds, Check, Comparison, Judgement, Verdict

URLS = {"prefill-0": "http://p0", "prefill-1": "http://p1", "decode-0": "http://d0", "decode-1": "http://d1"}
DEPLOYMENT = Deployment(
    tuple(Server(name, Role.DECODE if url[7] == "d" else Role.PREFILL, url) for name, url in URLS.items()),
    "http://proxy",
    "m",
)
BEGIN = 100.0
"""When the load begins, on the run's clock."""
_STARTED = RunStarted(0.0, (), 0, "1", None, ("load",))


@dataclass(frozen=True)
class One:
    """A request. Times are seconds since the load began."""

    due: float = 0.0
    sent: float = 0.0
    tokens: Sequence[float] = (0.2, 0.3, 0.4)
    ended: float | None = None
    """None: with the last token."""
    outcome: Outcome = Outcome.OK
    proxy: float | None = 0.01
    prefill: float | None = 0.05
    name: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of its end."""


def entries(requests: Sequence[One]) -> Iterator[Entry]:
    """Beginning and end of each request; servers take turns."""
    for number, one in enumerate(requests):
        name = one.name or f"load-{number}"
        times = tuple(BEGIN + at for at in one.tokens)
        yield Sent(BEGIN + one.sent, Request(name, (1, 2, 3)), "load", "load", BEGIN + one.due)
        yield Ended(
            at=times[-1] if one.ended is None else BEGIN + one.ended,
            request_id=name,
            outcome=one.outcome,
            cause="" if one.outcome is Outcome.OK else "502: no answer",
            status=200 if one.outcome is Outcome.OK else 502,
            choices=(Choice(tuple(range(len(times)))),) if times else (),
            usage=Usage(3, len(times)),
            token_times=times,
            tokens_per_chunk=(1,) * len(times),
            prefill_server=f"http://p{number % 2}",
            decode_server=f"http://d{number // 2 % 2}",
            proxy_seconds=one.proxy,
            prefill_seconds=one.prefill,
            **one.fields,
        )


def report_of(requests: Sequence[One], others: Sequence[Entry] = (), judgement: Judgement | None = None) -> Report:
    """The report of a run with these requests and other entries."""
    begun = PhaseStarted(BEGIN, "load", "load")
    history = History((_STARTED, begun, *entries(requests), *others, RunEnded(BEGIN + 1e6)))
    return make_report(DEPLOYMENT, history, judgement or Judgement(()))


def rows_with(report: Report, outputs: Mapping[int, OutputStatus], **fields: Any) -> list[RequestRow]:
    """The report's requests, some of them with other outputs, and these with other fields, too."""
    rows = request_rows(report.deployment, report.history, report.judgement)
    return [replace(row, output=outputs[n], **fields) if n in outputs else row for n, row in enumerate(rows)]


def drawn(count: int, seed: int = 0, tokens: int = 8) -> list[One]:
    """Requests at random times, in the order of sending; one in fifty fails before its first token."""
    rng = np.random.default_rng(seed)
    sent = np.sort(rng.uniform(0, count / 50, count))
    waits, each = rng.exponential(0.1, count), rng.exponential(0.01, (count, tokens))
    times = (sent + 0.07 + waits)[:, np.newaxis] + each.cumsum(axis=1)
    failed = rng.random(count) < 0.02
    return [
        One(due, at, (), at + 1, Outcome.INFO) if lost else One(due, at, tuple(arrived))
        for due, at, arrived, lost in zip(
            (sent - rng.exponential(0.002, count)).tolist(), sent.tolist(), times.tolist(), failed.tolist(), strict=True
        )
    ]


def fault(name: str, begin: float, end: float) -> tuple[Entry, ...]:
    """The entries of a fault, which was undone."""
    begin, end = BEGIN + begin, BEGIN + end
    return (
        FaultPlanned(BEGIN, name, "pause", "proxy", "stops the proxy", scenario="load", phase="load"),
        FaultBegan(begin, name),
        FaultProved(begin, name, "it was stopped"),
        FaultHealed(end, name, healed=True, text="it goes on"),
    )


def samples(server: str, readings: Mapping[float, Mapping[str, float]]) -> list[Sampled]:
    """Readings of a server's metrics by the time since the load began."""
    return [Sampled(BEGIN + at, server, **numbers) for at, numbers in readings.items()]


def comparison(server: str, counter: str, expected: int | Bounds, observed: float) -> Comparison:
    """A counter of one server."""
    bounds = Bounds.exactly(expected) if isinstance(expected, int) else expected
    return Comparison("load", "load", server, counter, bounds, observed)


def judged(*comparisons: Comparison) -> Judgement:
    """A judgement of one check with these comparisons."""
    return Judgement((Check("token_sources", Verdict.INVALID, "counted", comparisons),))
