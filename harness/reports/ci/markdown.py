"""A run as Markdown, for GitHub's step summary and Buildkite's annotations: the verdict first, then why.

All texts are escaped: characters that begin something in Markdown or HTML become character references, which are shown
as the characters and are never taken for structure. No text becomes a link, an image, a mention or a formula.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from harness.redact import redact_text
from harness.reports.catalogue import Row, overall, tally
from harness.reports.counters import CounterRow
from harness.reports.identity import PROJECT
from harness.reports.overview import Overview
from harness.reports.reasons import Reason
from harness.reports.report import Report
from harness.reports.screen.plain import MARK
from harness.reports.text import clean, count, duration, signed
from harness.verdict import Verdict

SIGN = {Verdict.VALID: "\N{WHITE HEAVY CHECK MARK}", Verdict.INVALID: "\N{CROSS MARK}", Verdict.UNKNOWN: "\u2754"}
"""Beside the word, never instead of it."""
_MOST_ROWS = 200
"""Rows of a table."""
_LONGEST = 2000
"""Characters of a text."""
_SPECIAL = str.maketrans({one: f"&#{ord(one)};" for one in "\\`*_[]<>&|~@#$"})
_LINKS = (("://", "&#58;//"), ("www.", "www&#46;"), ("mailto:", "mailto&#58;"), ("xmpp:", "xmpp&#58;"))
"""GitHub makes links of bare addresses, too."""


def run_markdown(report: Report) -> str:
    """The whole run."""
    shown = report.overview
    sections = (
        _title(report.verdict, shown.headline, report.identity.label),
        "\n".join(line for reason in shown.reasons for line in _reason(reason)),
        _workloads(report.rows),
        _counters(shown),
        _outputs(shown),
        _bullets("Faults", shown.faults),
        _latencies(shown),
        _facts(shown),
        _commands(report),
    )
    return "\n\n".join(filter(None, sections))


def rows_markdown(rows: Sequence[Row]) -> str:
    """Workloads of a deployment on which no run began."""
    return "\n\n".join((_title(overall(rows), tally(rows), ""), _workloads(rows)))


def escaped(text: str) -> str:
    """A text in one line, shown as it is."""
    line = clean(redact_text(text), _LONGEST).translate(_SPECIAL)
    for plain, reference in _LINKS:
        line = line.replace(plain, reference)
    return line


def code(text: str) -> str:
    """A text in a block of code, whose fence is longer than any in the text."""
    line = clean(redact_text(text), None)
    fence = "`" * max(3, line.count("`") + 1)
    return f"{fence}sh\n{line}\n{fence}"


def _title(verdict: Verdict, headline: str, label: str) -> str:
    name = f"{PROJECT} {escaped(label)}" if label else PROJECT
    return f"## {SIGN[verdict]} {name}: {verdict.upper()}\n\n{escaped(headline)}"


def _reason(reason: Reason) -> Iterator[str]:
    yield f"- **{reason.word} {escaped(reason.name)}**: {escaped(reason.summary)}"
    yield from (f"  - {escaped(one.subject)}: {escaped(one.text)}" for one in reason.findings)
    if reason.more:
        yield f"  - and {reason.more:,} more"
    if reason.advice:
        yield f"  - {escaped(reason.advice)}"


def _workloads(rows: Sequence[Row]) -> str:
    return _table(
        "Workloads",
        ("workload", "verdict", "deployment", "compared", "time"),
        ((row.workload, row.word, row.deployment_name, _compared(row), _time(row)) for row in rows),
    )


def _compared(row: Row) -> str:
    bad = row.judgement is None or row.verdict is not Verdict.VALID
    return "; ".join(filter(None, (row.compared, *(row.reasons if bad else ()))))


def _time(row: Row) -> str:
    return "" if row.judgement is None else duration(row.seconds)


def _counters(shown: Overview) -> str:
    rows = (_counter(row, remark) for row, remark in zip(shown.counters, shown.remarks, strict=True))
    table = _table("Counters", ("", "server", "counter", "expected", "observed", "difference", ""), rows)
    return f"{table}\n\n{shown.further} further counters are as expected." if shown.further else table


def _counter(row: CounterRow, remark: str) -> tuple[str, ...]:
    expected = "-" if row.expected is None else str(row.expected)
    difference = signed(row.difference) if row.difference else ""
    return (MARK[row.verdict], row.server, row.counter, expected, count(row.observed), difference, remark)


def _outputs(shown: Overview) -> str:
    return "\n".join((f"### Outputs\n\n{escaped(shown.outputs)}\n", *(f"- {escaped(note)}" for note in shown.notes)))


def _latencies(shown: Overview) -> str:
    rows = ((row.name, *map(_with_interval, row.values, row.intervals)) for row in shown.latencies)
    return _table("Latencies in ms (95 % confidence interval)", ("", "mean", "p50", "p90", "p99"), rows)


def _with_interval(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _facts(shown: Overview) -> str:
    facts = {
        "throughput": shown.throughput,
        "shares": shown.shares,
        "steady": shown.steady,
        "goodput": shown.goodput,
        "deployment": shown.deployment,
    }
    return "\n".join(f"- {name}: {escaped(text)}" for name, text in facts.items() if text)


def _commands(report: Report) -> str:
    blocks = ["### To repeat the run", code(report.identity.command)]
    if report.identity.directory:
        again = shlex.join(["python", "-m", "harness", "check", report.identity.directory])
        blocks += ["To judge it again, without any server:", code(again)]
    return "\n\n".join(blocks)


def _bullets(title: str, lines: Sequence[str]) -> str:
    return "\n".join((f"### {title}\n", *(f"- {escaped(line)}" for line in lines))) if lines else ""


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing if it has no row."""
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    if not lines:
        return ""
    more = len(lines) - _MOST_ROWS
    last = [f"\nand {more:,} more"] if more > 0 else []
    frame = (f"### {title}\n", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}")
    return "\n".join((*frame, *lines[:_MOST_ROWS], *last))
