"""Stores and shows the report of a finished run, of an interrupted run, and of ``check``."""

import sys
from pathlib import Path

from harness.cli.options import Options, ReportOptions
from harness.cli.page import write_page
from harness.cli.rejudged import rejudge
from harness.cli.report_files import publish, store_files
from harness.errors import HarnessError, UsageError
from harness.reports import Report, print_catalogue, print_report
from harness.store import RunStore, save_result


def store_report(report: Report, options: ReportOptions, directory: Path, *, table: bool = True) -> None:
    """Write result.json to the run's directory, and the other files that flags name.

    If a file cannot be written, the report is shown, so that it is not lost, and HarnessError is raised.
    """
    try:
        save_result(directory, report.result)
        if options.result_filename:
            save_result(directory, report.result, str((options.result_dir / options.result_filename).resolve()))
        store_files(report, options)
    except HarnessError as error:
        show(report, plain=options.plain, table=table)
        raise HarnessError(f"{error} The report above is the only copy of this run's verdict.") from error


def show(report: Report, *, plain: bool, table: bool = True) -> None:
    """Print the report, and below it the table of workloads if ``table`` is set and there is one."""
    print_report(report, plain=plain)
    if report.rows and table:
        print_catalogue(report.rows, plain=plain)


def end_interrupted(store: RunStore, options: Options, *, table: bool = True) -> Report | None:
    """Judge the part of a run that was recorded before Ctrl-C or SIGTERM, as ``check`` does; store and show the report.

    The verdict is never valid. None if the deployment was not up yet: there is nothing to judge.
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
    publish(report, options.report)
    _note(f"everything recorded before the interruption is stored in {store.path} and judged in the report above")
    _note(f"to judge it again: python -m harness check {store.path}")
    write_page(report, options.report, store.path)
    return report


def _note(line: str) -> None:
    # On stderr, since stdout holds exactly what `check` would print.
    print(f"interrupted: {line}", file=sys.stderr)
