"""Writes a finished run to the files that flags name, and tells the CI system and the Pushgateway that there are."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.cli.options import ReportOptions
from harness.cli.output import print_command
from harness.errors import HarnessError
from harness.reports import Report
from harness.reports.ci import announce
from harness.reports.files.csv_file import requests_csv
from harness.reports.files.parquet_file import requests_parquet
from harness.reports.files.prometheus import results_text
from harness.reports.files.pushgateway import push
from harness.reports.requests import RequestRow, request_rows
from harness.store import save_text
from harness.store.atomic import is_special

Content = Callable[[], str | bytes]


def store_files(report: Report, options: ReportOptions) -> None:
    """Write all files; one that cannot be written keeps no other from being written. Raises HarnessError for them."""
    failures = []
    for path, content in _files(report, options):
        try:
            save_text(path if is_special(path) else path.resolve(), content())
        except HarnessError as error:
            failures.append(str(error))
    if failures:
        raise HarnessError(" ".join(failures))


def _files(report: Report, options: ReportOptions) -> Iterator[tuple[Path, Content]]:
    files = options.files
    rows = _rows(report) if files.csv or files.parquet or files.prometheus else ()
    if options.junit:
        yield options.junit, lambda: report.junit
    if files.csv:
        yield files.csv, lambda: requests_csv(rows)
    if files.parquet:
        yield files.parquet, lambda: requests_parquet(rows, report.identity)
    if files.prometheus:
        yield files.prometheus, lambda: results_text(report, rows)


def _rows(report: Report) -> tuple[RequestRow, ...]:
    return request_rows(report.deployment, report.history, report.judgement)


def publish(report: Report, options: ReportOptions) -> None:
    """Push to the Pushgateway, and annotate the build. What fails is one line on stderr, and changes no exit code.

    A gateway that is away for a minute must not make a night's run fail. Call it when the report has been stored and
    shown: it may wait for others.
    """
    if options.files.pushgateway and (why := push(report, _rows(report), options.files.pushgateway)):
        print(f"--pushgateway: the results were not pushed: {why}", file=sys.stderr)
    if options.files.announced:
        announce(report, os.environ, print_command)
