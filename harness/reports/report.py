"""One run's reports together: made once, then stored and shown."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness.facts import Deployment
from harness.history import History
from harness.load.latency import latency_report
from harness.reports.junit import junit_xml
from harness.reports.measured import under_test
from harness.reports.plain import plain_lines
from harness.reports.result_json import LoadSettings, result
from harness.reports.summary import Summary, summarize
from harness.reports.terminal import print_summary
from harness.verdict import Judgement


@dataclass(frozen=True, slots=True)
class Report:
    """A judged run in every form."""

    judgement: Judgement
    result: dict[str, Any]
    """Content of result.json."""
    summary: Summary
    junit: str
    """JUnit XML."""


def make_report(
    deployment: Deployment,
    history: History,
    judgement: Judgement,
    run_dir: Path | None = None,
    load: LoadSettings | None = None,
) -> Report:
    """Measure the requests under test and say everything; ``load`` is told from the history where it is not given."""
    measured = under_test(history)
    latency = latency_report(measured)
    return Report(
        judgement,
        result(deployment, history, judgement, latency, load or LoadSettings(len(measured))),
        summarize(deployment, history, judgement, latency, run_dir=run_dir),
        junit_xml(history, judgement),
    )


def print_report(report: Report, *, plain: bool = False, stream: TextIO | None = None) -> None:
    """Show the summary on ``stream`` (default: stdout), as plain lines if asked or if it is no terminal."""
    stream = stream or sys.stdout
    if plain:
        stream.writelines(f"{line}\n" for line in plain_lines(report.summary))
    else:
        print_summary(report.summary, Console(file=stream, highlight=False))
