"""A comparison on a terminal: the conclusion first, then the table, then the rest."""

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from harness.compare.changes import Change
from harness.compare.comparison import Comparison, Conclusion
from harness.compare.evidence import Answer
from harness.compare.text import HEADER, around_lines, cells, headline, plain_lines, shown
from harness.reports.screen.style import bare_table, fits
from harness.reports.text import clean

_STYLES = {Conclusion.NO_WORSE: "green", Conclusion.WORSE: "red", Conclusion.UNKNOWN: "yellow"}


def terminal_parts(comparison: Comparison, console: Console) -> Iterator[RenderableType]:
    """What is printed to ``console``, in order; plain lines if the table does not fit."""
    table = bare_table()
    for number, name in enumerate(HEADER):
        table.add_column(name, justify="left" if number in (0, len(HEADER) - 1) else "right", no_wrap=True)
    for change in shown(comparison):
        table.add_row(*map(Text, cells(change)), style=_style(change))
    if not fits(table, console):
        yield from map(Text, plain_lines(comparison))
        return
    yield Text(headline(comparison), style=f"bold {_STYLES[comparison.conclusion]}")
    yield from (Text(f"  {clean(reason, None)}") for reason in comparison.reasons)
    yield table
    yield from map(Text, around_lines(comparison))


def _style(change: Change) -> str:
    answer = change.evidence.answer
    if answer is Answer.REAL:
        return "bold red" if change.worse else "bold green"
    return "yellow" if answer is Answer.UNKNOWN else "dim" if answer is Answer.SAME else ""
