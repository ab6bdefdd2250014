"""One run's reports together: made once, then stored and shown. All of them say one verdict, which is decided here.

A plain load's verdict is the worst of its checks. A catalogue's is that of its table, in which known faults of the
engine are told and do not count: the verdict line, result.json, JUnit and the exit code all have it from there.
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
    """Every check of the run as a whole, known faults among them."""
    verdict: Verdict
    """The run's: what it exits with."""
    rows: tuple[Row, ...]
    """A catalogue's table; empty for a plain load."""
    result: dict[str, Any]
    """Content of result.json."""
    overview: Overview
    junit: str
    """JUnit XML."""
    died: bool = False
    """Whether a process died that the harness had started."""


def make_report(  # noqa: PLR0913 - what was run and how it was judged; all but three have defaults
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    run_dir: Path | None = None,
    load: LoadSettings | None = None,
    *,
    rows: Sequence[Row] = (),
) -> Report:
    """Measure the requests under test and say everything; ``load`` is told from the history where it is not given.

    ``rows``: of the catalogue's workloads, where the run was of these.
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
    """Show the summary on ``stream`` (default: stdout), as plain lines if asked or if it is no terminal."""
    stream = stream or sys.stdout
    if plain:
        stream.writelines(f"{line}\n" for line in plain_lines(report.overview))
    else:
        print_overview(report.overview, Console(file=stream, highlight=False))
