"""The catalogue's table: one row per workload, with the reasons if it is not valid."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.facts import Deployment
from harness.reports.screen.style import STYLE, bare_table, fits
from harness.reports.text import clean, duration, plural
from harness.verdict import Check, Judgement, KnownFault, Verdict, worst

WHOLE_RUN = "(whole run)"
"""The row for checks of the whole run that are not valid and belong to no workload."""
_MOST_REASONS = 3
"""Checks of a row that are shown with their summaries; further checks are only named."""
_READABLE = 32
"""Minimum width of a column of sentences, characters."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload on one deployment."""

    workload: str
    family: str
    deployment_name: str
    judgement: Judgement | None = None
    """None: the workload was skipped."""
    skipped: str = ""
    """Why it was skipped."""
    requests: int = 0
    """Requests of the load that were sent."""
    seconds: float = 0.0
    known_fault: KnownFault | None = None
    deployment: Deployment | None = None
    """The deployment that the workload ran on; None: unknown, and no fault is excused."""

    @property
    def verdict(self) -> Verdict | None:
        """None if the workload was skipped."""
        return None if self.judgement is None else self.judgement.verdict

    @property
    def excused(self) -> bool:
        """Whether the known fault explains everything that is wrong."""
        if self.judgement is None or self.known_fault is None or self.deployment is None:
            return False
        return self.known_fault.excuses(self.judgement, self.deployment)

    @property
    def word(self) -> str:
        """The verdict as the table shows it."""
        if self.excused:
            return "known fault"
        return "skipped" if self.verdict is None else self.verdict.value

    @property
    def compared(self) -> str:
        """How many of the compared outputs and counters are right."""
        if self.judgement is None:
            return ""
        outputs, counters = self.judgement.outputs, self.judgement.comparisons
        right = sum(one.verdict is Verdict.VALID for one in counters)
        verified = f"{outputs.exact + outputs.tie}/{outputs.requests} outputs"
        ties = f" ({plural(outputs.tie, 'near tie')})" if outputs.tie else ""
        return f"{verified}{ties}, {right}/{len(counters)} counters"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the workload is not valid, the worst first."""
        if self.judgement is None:
            return (self.skipped,)
        bad = [check for verdict in (Verdict.INVALID, Verdict.UNKNOWN) for check in self._with(verdict)]
        # A known fault needs no advice: its cause is known, and the user cannot remove it.
        why = [line for check in bad[:_MOST_REASONS] for line in _why(check, with_advice=not self.excused)]
        if len(bad) > _MOST_REASONS:
            why.append(f"and {', '.join(f'{check.verdict} {check.name}' for check in bad[_MOST_REASONS:])}")
        return (*self._known(), *why)

    @property
    def as_json(self) -> dict[str, object]:
        """The row in result.json."""
        return {
            "workload": self.workload,
            "family": self.family,
            "verdict": self.word,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "compared": self.compared,
            "reasons": list(self.reasons),
        }

    def _known(self) -> Iterator[str]:
        if self.known_fault is None:
            return
        if self.excused:
            yield clean(self.known_fault.text, None)
        elif self.verdict is Verdict.VALID:
            yield clean(f"this known fault did not show: {self.known_fault.text}", None)
        elif self.deployment is None or not self.known_fault.concerns(self.deployment):
            yield clean(f"not excused, because this is another release or device: {self.known_fault.text}", None)
        else:
            yield clean(f"not excused, because something else is wrong too: {self.known_fault.text}", None)

    def _with(self, verdict: Verdict) -> list[Check]:
        return [] if self.judgement is None else [one for one in self.judgement.checks if one.verdict is verdict]


def _why(check: Check, *, with_advice: bool) -> Iterator[str]:
    yield clean(f"{check.verdict} {check.name}: {check.summary}", None)
    if check.advice and with_advice:
        yield clean(str(check.advice), None)


def overall(rows: Iterable[Row]) -> Verdict:
    """The worst verdict of the workloads that ran, without those whose known fault is excused."""
    return worst(row.verdict for row in rows if row.verdict is not None and not row.excused)


def tally(rows: Sequence[Row]) -> str:
    """``43 workloads: 41 valid, 2 skipped``, and the verdict of the row for the whole run if there is one."""
    words = [row.word for row in rows if row.workload != WHOLE_RUN]
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    whole = [row.verdict for row in rows if row.workload == WHOLE_RUN and row.verdict is not None]
    rest = f"; the run as a whole is {worst(whole)}" if whole else ""
    return f"{plural(len(words), 'workload')}: {counted or 'none ran'}{rest}"


def print_catalogue(rows: Sequence[Row], *, plain: bool = False, stream: TextIO | None = None) -> None:
    """Print to ``stream`` (default: stdout): a table if it fits a terminal, otherwise or if ``plain``, plain lines."""
    console = Console(file=stream or sys.stdout, highlight=False)
    table = _table(rows)
    if plain or not console.is_terminal or console.is_dumb_terminal or not fits(table, console):
        for line in catalogue_lines(rows):
            print(line, file=console.file)
    else:
        console.print(table)
        console.print(Text(tally(rows), style=f"bold {STYLE[overall(rows)]}"))


def catalogue_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table, line by line."""
    width = max((len(row.workload) for row in rows), default=0)
    for row in rows:
        if row.judgement is None:
            yield f"{row.word:<11} {row.workload:<{width}}  {row.skipped}"
            continue
        figures = f"{plural(row.requests, 'request')}, {row.compared}, {duration(row.seconds)}"
        yield f"{row.word:<11} {row.workload:<{width}}  {figures}, on {row.deployment_name}"
        if row.verdict is not Verdict.VALID or row.known_fault:
            yield from (f"{'':<11} {'':<{width}}  {reason}" for reason in row.reasons)
    yield tally(rows)


def _table(rows: Sequence[Row]) -> Table:
    table = bare_table()
    for name in ("workload", "verdict", "deployment"):
        table.add_column(name, no_wrap=True)
    table.add_column("requests", justify="right")
    table.add_column("compared", overflow="fold", min_width=_READABLE)
    table.add_column("time", justify="right", no_wrap=True)
    family = ""
    for row in rows:
        if row.family != family:
            table.add_row(Text(row.family, "bold"))
        family = row.family
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[Text, ...]:
    verdict = Verdict.UNKNOWN if row.excused else row.verdict
    style = "dim" if verdict is None else STYLE[verdict]
    text = row.skipped if row.judgement is None else row.compared
    if row.judgement is not None and (row.verdict is not Verdict.VALID or row.known_fault):
        text = "\n".join((text, *row.reasons))
    figures = ("", "") if row.judgement is None else (f"{row.requests:,}", duration(row.seconds))
    return (
        Text(f"  {row.workload}"),
        Text(row.word, style),
        Text(row.deployment_name, "dim"),
        Text(figures[0]),
        Text(text, "dim" if row.judgement is None else ""),
        Text(figures[1]),
    )
