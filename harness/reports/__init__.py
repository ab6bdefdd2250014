"""Reports of a judged run: for the terminal, as result.json, and as JUnit XML for CI systems."""

from harness.reports.catalogue import WHOLE_RUN, Row, overall, print_catalogue
from harness.reports.files.result_json import LoadSettings
from harness.reports.progress import LiveProgress, PlainProgress, Progress, make_progress
from harness.reports.report import Report, exit_code, make_report, print_report
from harness.reports.screen.plain import reason_lines

__all__ = [
    "WHOLE_RUN",
    "LiveProgress",
    "LoadSettings",
    "PlainProgress",
    "Progress",
    "Report",
    "Row",
    "exit_code",
    "make_progress",
    "make_report",
    "overall",
    "print_catalogue",
    "print_report",
    "reason_lines",
]
