"""The table of expected and observed counters: all of them, those that are not as expected first."""

from collections.abc import Iterator, Sequence
from typing import Any

from harness.reports.counters import CounterRow, comparison_line, rows
from harness.reports.text import clean
from harness.verdict import Judgement, Verdict

_MOST_PARTS = 50
"""Comparisons of single phases that are listed below the table."""
_NAMES = {Verdict.INVALID: "Differs", Verdict.UNKNOWN: "Unknown", Verdict.VALID: "As expected"}
"""Names of the table's filters, the gravest verdict first."""


def counters(judgement: Judgement) -> dict[str, Any]:
    """What the template needs: rows with their remarks, filters, and the phases that differ."""
    order = list(_NAMES)
    compared = sorted(rows(judgement.comparisons), key=lambda row: order.index(row.verdict))
    found = {row.verdict for row in compared}
    return {
        "counters": list(zip(compared, _remarks(compared), strict=True)),
        "counter_filters": [(verdict.value, name) for verdict, name in _NAMES.items() if verdict in found],
        "parts": _wrong_parts(compared),
    }


def _remarks(compared: Sequence[CounterRow]) -> Iterator[str]:
    """Why each counter is not as expected. A text that was shown before is not shown again."""
    seen: set[str] = set()
    for row in compared:
        note = clean(row.note, None)
        yield "as above" if note in seen else note
        seen |= {note} if note else set()


def _wrong_parts(compared: Sequence[CounterRow]) -> tuple[Sequence[str], int]:
    """The comparisons of single phases that are not valid, and how many more there are."""
    parts = [part for row in compared if len(row.parts) > 1 for part in row.parts if part.verdict is not Verdict.VALID]
    return [comparison_line(part) for part in parts[:_MOST_PARTS]], max(0, len(parts) - _MOST_PARTS)
