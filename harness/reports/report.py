"""All reports of one run, made together. The verdict that all of them show is decided here.

A load has the worst verdict of its checks. A catalogue has the verdict of its table, in which excused known faults of
the engine do not count. The verdict line, result.json, JUnit and the exit code all use this verdict.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness.facts import Deployment
from harness.history import History
from harness.load.latency import latency_report
from harness.reports.catalogue import Row, overall
from harness.reports.catalogue_junit import catalogue_junit
from harness.reports.junit import junit_xml
from harness.reports.measured import under_test
from harness.reports.overview import Overview, make_overview
from harness.reports.plain import plain_lines
from harness.reports.result_json import LoadSettings, result
from harness.reports.terminal import print_overview
from harness.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """A judged run in every form."""

    judgement: Judgement
    """All checks of the run, including known faults."""
    verdict: Verdict
    """The run's verdict, which decides the exit code."""
    rows: tuple[Row, ...]
    """The catalogue's table; empty for a load."""
    result: dict[str, Any]
    """The content of result.json."""
    overview: Overview
    junit: str
    """JUnit XML."""
    died: bool = False
    """Whether a process that the harness started died."""


def make_report(  # noqa: PLR0913 - all but three have defaults
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    run_dir: Path | None = None,
    load: LoadSettings | None = None,
    *,
    rows: Sequence[Row] = (),
) -> Report:
    """Measure the latencies and make all reports.

    ``load``: by default, derived from the history. ``rows``: the catalogue's table, if the run was one of the
    catalogue.
    """
    measured = under_test(history)
    latency = latency_report(measured)
    verdict = overall(rows) if rows else judgement.verdict
    content = result(deployment, history, judgement, latency, load or LoadSettings(len(measured)))
    content["verdict"] = verdict.value
    if rows:
        content["workloads"] = [row.as_json for row in rows]
    return Report(
        judgement,
        verdict,
        tuple(rows),
        content,
        make_overview(deployment, history, judgement, latency, run_dir=run_dir, rows=rows),
        catalogue_junit(rows) if rows else junit_xml(history, judgement),
        died=bool(history.died),
    )


def print_report(report: Report, *, plain: bool = False, stream: TextIO | None = None) -> None:
    """Print the overview to ``stream`` (default: stdout), as plain lines if ``plain`` or if it is not a terminal."""
    stream = stream or sys.stdout
    if plain:
        stream.writelines(f"{line}\n" for line in plain_lines(report.overview))
    else:
        print_overview(report.overview, Console(file=stream, highlight=False))
