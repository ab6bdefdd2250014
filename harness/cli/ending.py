"""How a run ends: its report is stored and shown. The same for a finished run, an interrupted one and ``check``."""

import sys
from pathlib import Path

from harness.cli.options import Options, ReportOptions
from harness.cli.rejudged import rejudge
from harness.errors import HarnessError, UsageError
from harness.reports import Report, print_catalogue, print_report
from harness.store import RunStore, save_result, save_text


def store_report(report: Report, options: ReportOptions, directory: Path, *, table: bool = True) -> None:
    """Write result.json to the run's directory, and the other files that were asked for.

    Raises:
        HarnessError: a file could not be written. The report has been shown then, so that it is not lost.

    """
    try:
        save_result(directory, report.result)
        if options.result_filename:
            save_result(directory, report.result, str((options.result_dir / options.result_filename).resolve()))
        store_junit(report, options)
    except HarnessError as error:
        show(report, plain=options.plain, table=table)
        raise HarnessError(f"{error} The report above is the only copy of this run's verdict.") from error


def store_junit(report: Report, options: ReportOptions) -> None:
    """Write JUnit XML if it was asked for."""
    if options.junit:
        save_text(options.junit.resolve(), report.junit)


def show(report: Report, *, plain: bool, table: bool = True) -> None:
    """Print the report; with ``table``, a catalogue's table under it."""
    print_report(report, plain=plain)
    if report.rows and table:
        print_catalogue(report.rows, plain=plain)


def end_interrupted(store: RunStore, options: Options, *, table: bool = True) -> Report | None:
    """Judge what was recorded before Ctrl-C or SIGTERM, as ``check`` does, then store and show it.

    The verdict is never valid, since the run did not come to its end. ``table``: whether a catalogue's table is shown.
    None if the deployment was not up yet, so that there is nothing to judge.
    """
    store.close()
    try:
        report = rejudge(store.path)
    except UsageError:
        print("UNKNOWN: the run was interrupted before its deployment was up; no request was sent")
        _note(f"the run is stored in {store.path}")
        return None
    store_report(report, options.report, store.path, table=table)
    show(report, plain=options.report.plain, table=table)
    _note(f"everything recorded before the interruption is stored in {store.path}; the report above is about it")
    _note(f"to judge it again: python -m harness check {store.path}")
    return report


def _note(line: str) -> None:
    # On stderr, since stdout holds exactly what `check` would print.
    print(f"interrupted: {line}", file=sys.stderr)
