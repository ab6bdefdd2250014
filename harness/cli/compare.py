"""``python -m harness compare BASELINE RUN``: what changed between two sets of stored runs, and whether it is real."""

import json
import sys

from rich.console import Console

from harness.api.compared_runs import compare_runs
from harness.cli.options import CompareOptions, Options
from harness.compare import Comparison
from harness.compare.table import terminal_parts
from harness.compare.text import as_json, plain_lines
from harness.errors import ExitCode, UsageError
from harness.store import save_text


async def compare(options: Options) -> ExitCode:
    """Read the runs, compare them, show and store the comparison."""
    how = options.compare
    assert how is not None, "the command line names compare"  # noqa: S101 - for the type checker
    comparison = compare_runs(*_sides(how), fail_on=how.fail_on, allow_different=how.allow_different)
    if how.output is not None:
        save_text(how.output.resolve(), json.dumps(as_json(comparison), indent=2, allow_nan=False) + "\n")
    _show(comparison, plain=options.report.plain)
    return comparison.exit_code


def _sides(how: CompareOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if how.baseline and how.run and not how.runs:
        return how.baseline, how.run
    if len(how.runs) == 2 and not (how.baseline or how.run):
        return how.runs[:1], how.runs[1:]
    raise UsageError(
        "compare needs two sides: python -m harness compare BASELINE RUN, or --baseline A --baseline B --run C --run D."
    )


def _show(comparison: Comparison, *, plain: bool) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if plain or not console.is_terminal or console.is_dumb_terminal:
        for line in plain_lines(comparison):
            print(line)
        return
    for part in terminal_parts(comparison, console):
        console.print(part, highlight=False)
