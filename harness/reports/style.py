"""Colours of verdicts on a terminal, each beside a word that says the same; and what a terminal has room for."""

from rich.console import Console
from rich.table import Table

from harness.verdict import Verdict

STYLE = {Verdict.VALID: "green", Verdict.INVALID: "red", Verdict.UNKNOWN: "yellow"}
_ANY_WIDTH = 10_000


def fits(table: Table, console: Console) -> bool:
    """Whether the terminal is wide enough: rich would cut what does not fit, and half a number is a wrong one."""
    anywhere = console.options.update(width=_ANY_WIDTH)
    for column in table.columns:
        if column.no_wrap:  # its cells are wanted in one piece, and rich counts their longest word
            cells = [column.header, *column.cells]
            column.min_width = max(console.measure(cell, options=anywhere).maximum for cell in cells)
    return console.measure(table, options=anywhere).minimum <= console.width
