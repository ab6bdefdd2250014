"""A run's overview on a terminal: the verdict first and large, then the reasons, then the figures.

Every coloured verdict is a word too. If the output is not a terminal, the lines of ``plain`` are printed instead. With
NO_COLOR set (https://no-color.org), the layout stays without colours.
"""

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.reports.counters import CounterRow
from harness.reports.overview import Overview
from harness.reports.reasons import Reason
from harness.reports.screen.plain import MARK, counter_lines, latency_lines, plain_lines
from harness.reports.screen.style import STYLE, bare_table, fits
from harness.reports.text import count, plural, signed
from harness.verdict import Verdict


def print_overview(overview: Overview, console: Console) -> None:
    """Print to ``console``; as plain lines if it is not a terminal."""
    if console.is_terminal and not console.is_dumb_terminal:
        for part in _parts(overview, console):
            console.print(part, highlight=False)
    else:
        for line in plain_lines(overview):
            print(line, file=console.file)


def _parts(overview: Overview, console: Console) -> Iterator[RenderableType]:
    yield _verdict(overview)
    yield from (_reason(reason) for reason in overview.reasons)
    if overview.passed:
        yield _passed(overview)
        yield Text()
    if overview.counters:
        table = _counters(overview)
        yield table if fits(table, console) else Text("\n".join(counter_lines(overview)))
        yield Text()
    yield Text(f"outputs  {overview.outputs}", style="bold red" if overview.outputs_wrong else "")
    yield from (Text(f"         {note}", style="dim") for note in overview.notes)
    yield Text()
    if overview.faults:
        yield _faults(overview)
        yield Text()
    latencies = _latencies(overview)
    yield latencies if fits(latencies, console) else Text("\n".join(latency_lines(overview)))
    yield Text()
    yield _facts(overview)


def _verdict(overview: Overview) -> RenderableType:
    """A bar as wide as the terminal, in reverse video without colours."""
    bar = Padding(
        Text(f"{overview.verdict.upper()}   {overview.headline}"),
        (1, 2),
        style=f"bold reverse {STYLE[overview.verdict]}",
    )
    return Padding(bar, (1, 0))


def _reason(reason: Reason) -> RenderableType:
    style = "dim" if reason.ignored_as else STYLE[reason.verdict]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=7, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(reason.word, style=f"bold {style}"), Text.assemble((f"{reason.name}: ", "bold"), reason.summary))
    for finding in reason.findings:
        grid.add_row("", Text.assemble((f"{finding.subject}  ", style), finding.text))
    if reason.more:
        grid.add_row("", Text(f"and {reason.more:,} more", style="dim"))
    if reason.advice:
        grid.add_row("", Text(reason.advice, style="italic"))
    return Padding(grid, (0, 0, 1, 0))


def _passed(overview: Overview) -> RenderableType:
    """Names of the valid checks, with their summaries if all checks are valid."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=7)
    grid.add_column(overflow="fold")
    if overview.reasons:
        grid.add_row(Text("valid", style="green"), Text(", ".join(name for name, _ in overview.passed)))
    else:
        for name, text in overview.passed:
            grid.add_row(Text("valid", style="green"), Text.assemble((f"{name}: ", "bold"), text))
    return grid


def _counters(overview: Overview) -> Table:
    table = bare_table()
    for name in ("server", "counter"):
        table.add_column(name, no_wrap=True)
    for name in ("expected", "observed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    server = ""
    for row, remark in zip(overview.counters, overview.remarks, strict=True):
        table.add_row(*_cells(row, "" if row.server == server else row.server, remark), style=_row_style(row))
        server = row.server
    if overview.further:
        table.add_row("", Text(f"{plural(overview.further, 'other')} as expected", "dim"))
    return table


def _row_style(row: CounterRow) -> str:
    return "" if row.verdict is Verdict.VALID else f"bold {STYLE[row.verdict]}"


def _cells(row: CounterRow, server: str, remark: str) -> tuple[Text, ...]:
    expected = "-" if row.expected is None else str(row.expected)
    return tuple(Text(cell) for cell in (server, row.counter, expected, count(row.observed), _remark(row, remark)))


def _remark(row: CounterRow, why: str) -> str:
    difference = signed(row.difference) if row.difference else ""
    mark = "" if row.verdict is Verdict.VALID else MARK[row.verdict]
    return " ".join(filter(None, (mark, difference, why)))


def _latencies(overview: Overview) -> Table:
    table = bare_table()
    table.add_column("latency, ms", no_wrap=True)
    for name in ("mean", "p50", "p90", "p99"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    for row in overview.latencies:
        table.add_row(row.name, *row.values)
        if any(row.intervals):
            table.add_row("  95 %", *row.intervals, style="dim")
    return table


def _faults(overview: Overview) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8)
    grid.add_column(overflow="fold")
    for number, line in enumerate(overview.faults):
        name, _, what = line.partition(": ")
        grid.add_row("" if number else "faults", Text.assemble((name, "bold"), f"  {what}"))
    return grid


def _facts(overview: Overview) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("throughput", Text(overview.throughput))
    if overview.shares:
        grid.add_row("shares", Text(overview.shares))
    if overview.steady:
        grid.add_row("steady", Text(overview.steady))
    if overview.goodput:
        grid.add_row("goodput", Text(overview.goodput))
    grid.add_row("deployment", Text(overview.deployment))
    if overview.stored:
        grid.add_row("stored", Text(overview.stored))
    grid.add_row("again", Text(overview.again))
    return grid
