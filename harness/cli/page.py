"""``report.html`` of a run: written after the verdict was stored and shown, on which it has no influence."""

import sys
from pathlib import Path

from harness.cli.options import ReportOptions
from harness.reports import Report
from harness.store import save_text

PAGE = "report.html"


def write_page(report: Report, options: ReportOptions, directory: Path, *, quiet: bool = False) -> None:
    """Write the page to the run's directory, and print where it is unless ``quiet``.

    The line goes to stderr: stdout holds exactly what ``check`` would print.

    A failure is one line on stderr: it changes neither the verdict nor the exit code. Without effect if ``--no-html``
    was given.
    """
    if not options.html:
        return
    try:
        path = save_text(directory / PAGE, report.html())
    except Exception as error:  # noqa: BLE001 - the run has its verdict, which must not be lost for its picture
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {directory / PAGE} was not written: {text}", file=sys.stderr)
        return
    if not quiet:
        print(f"report: {path}", file=sys.stderr)
