"""What is told of a run that Ctrl-C or SIGTERM ended: what is known so far, where it is stored, how to judge it."""

import sys
from collections.abc import Iterator

from harness.cli.options import Options
from harness.cli.outcome import show, store_report
from harness.cli.rejudged import rejudge
from harness.errors import ExitCode, UsageError
from harness.reports import Report
from harness.store import RunStore


def end_interrupted(store: RunStore, options: Options, *, table: bool = True) -> tuple[ExitCode, Report | None]:
    """Judge what was recorded, as ``check`` does, store and show it. Never valid: the run did not come to its end.

    ``table``: whether a catalogue's is shown, too. No report where there was nothing to judge.
    """
    store.close()
    try:
        report = rejudge(store.path).report
    except UsageError:
        print("UNKNOWN: the run was interrupted before its deployment was up; nothing was asked of it")
        _tell(f"stored in {store.path}")
        return ExitCode.UNKNOWN, None
    store_report(report, options.report, store.path, table=table)
    code = show(report, plain=options.report.plain, table=table)
    for line in _where(store):
        _tell(line)
    return code, report


def _where(store: RunStore) -> Iterator[str]:
    yield f"what was recorded is stored in {store.path}; the report above is of this"
    yield f"to judge it again: python -m harness check {store.path}"


def _tell(line: str) -> None:
    # Not on stdout, which holds what `check` would print.
    print(f"interrupted: {line}", file=sys.stderr)
