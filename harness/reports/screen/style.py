"""Colours of verdicts on a terminal, where the verdict is always a word too; and whether a table fits a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.verdict import Verdict

STYLE = {Verdict.VALID: "green", Verdict.INVALID: "red", Verdict.UNKNOWN: "yellow"}
_ANY_WIDTH = 10_000


def bare_table() -> Table:
    """A table without lines, except below its header."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")


def fits(table: Table, console: Console) -> bool:
    """Whether the terminal is wide enough for the table: rich would shorten numbers that do not fit."""
    anywhere = console.options.update(width=_ANY_WIDTH)
    for column in table.columns:
        # Rich takes the longest word for the minimum width, but these cells must stay in one piece.
        if column.no_wrap:
            cells = [column.header, *column.cells]
            column.min_width = max(console.measure(cell, options=anywhere).maximum for cell in cells)
    return console.measure(table, options=anywhere).minimum <= console.width
