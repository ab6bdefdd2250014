"""A run's overview as plain lines, for logs and pipes: no boxes, no colours, no line breaks to fit a width."""

from collections.abc import Iterator

from harness.reports.counters import CounterRow
from harness.reports.overview import Overview
from harness.reports.reasons import Reason
from harness.reports.text import count, plural, signed
from harness.verdict import Verdict

MARK = {Verdict.VALID: "ok", Verdict.INVALID: "DIFFERS", Verdict.UNKNOWN: "UNKNOWN"}


def plain_lines(overview: Overview) -> Iterator[str]:
    """The report, line by line."""
    yield f"{overview.verdict.upper()}: {overview.headline}"
    yield from reason_lines(overview)
    for name, text in overview.passed:
        yield f"  valid {name}: {text}"
    if overview.counters:
        yield from counter_lines(overview)
    yield f"outputs: {overview.outputs}"
    yield from (f"  {note}" for note in overview.notes)
    if overview.faults:
        yield "faults:"
        yield from (f"  {line}" for line in overview.faults)
    yield from latency_lines(overview)
    yield f"throughput: {overview.throughput}"
    if overview.shares:
        yield f"shares: {overview.shares}"
    if overview.steady:
        yield f"steady: {overview.steady}"
    if overview.goodput:
        yield f"goodput: {overview.goodput}"
    yield f"deployment: {overview.deployment}"
    if overview.stored:
        yield f"stored: {overview.stored}"
    yield f"again: {overview.again}"


def reason_lines(overview: Overview) -> Iterator[str]:
    """Why the run is not valid: the checks that are not, with their findings."""
    for reason in overview.reasons:
        yield from _reason(reason)


def counter_lines(overview: Overview) -> Iterator[str]:
    """The shown counters, a line each."""
    yield "counters:"
    yield from map(_counter, overview.counters, overview.remarks)
    if overview.further:
        yield f"  ok {plural(overview.further, 'further counter')}"


def latency_lines(overview: Overview) -> Iterator[str]:
    """The latencies, a line each."""
    for row in overview.latencies:
        named = zip(("mean", "p50", "p90", "p99"), row.values, row.intervals, strict=True)
        parts = [f"{name} {value}" + (f" ({interval})" if interval else "") for name, value, interval in named]
        yield f"{row.name} ms: {', '.join(parts)}"


def _reason(reason: Reason) -> Iterator[str]:
    yield f"  {reason.word} {reason.name}: {reason.summary}"
    yield from (f"    {finding.subject}: {finding.text}" for finding in reason.findings)
    if reason.more:
        yield f"    and {reason.more:,} more"
    if reason.advice:
        yield f"    {reason.advice}"


def _counter(row: CounterRow, remark: str) -> str:
    expected = "-" if row.expected is None else str(row.expected)
    text = f"  {MARK[row.verdict]} {row.server} {row.counter}: expected {expected}, observed {count(row.observed)}"
    difference = f" ({signed(row.difference)})" if row.difference else ""
    return text + difference + (f"; {remark}" if remark else "")
