"""One run's report in every form. The run's verdict and exit code are decided here, and nowhere else.

A plain load's verdict is the worst of its checks. A catalogue's verdict is that of its table, in which known faults of
the engine are listed and do not count. The verdict line, result.json, JUnit and the exit code all take it from here.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from harness.errors import ExitCode
from harness.facts import Deployment
from harness.history import History
from harness.load.goodput import Goodput, goodput
from harness.load.latency import Latencies, latencies, latency_detail, latency_report
from harness.reports.catalogue import Row, overall
from harness.reports.files.catalogue_junit import catalogue_junit
from harness.reports.files.junit import junit_xml
from harness.reports.files.result_json import LoadSettings, result
from harness.reports.identity import RunIdentity, identity_of
from harness.reports.measured import under_test
from harness.reports.overview import Overview, make_overview
from harness.reports.screen.plain import plain_lines
from harness.reports.screen.terminal import print_overview
from harness.store.atomic import write_atomically
from harness.verdict import Check, Finding, FindingKind, Judgement, Outputs, Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """A judged run. ``print(report)`` shows it as plain lines."""

    deployment: Deployment
    history: History
    judgement: Judgement
    """All checks of the run, including known faults."""
    verdict: Verdict
    """The run's verdict, which decides the exit code."""
    rows: tuple[Row, ...]
    """The catalogue's table; empty for a load."""
    result: dict[str, Any]
    """The content of result.json."""
    overview: Overview
    identity: RunIdentity
    """Which run it is, of which versions, and how to repeat it."""
    junit: str
    """JUnit XML."""
    path: Path | None = None
    """The directory where the run is stored; None: it is not stored."""
    goodput: Goodput | None = None
    """Requests that kept the given objectives; None: none were given."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of ``python -m harness`` with this report."""
        return exit_code(self.verdict, died=bool(self.history.died))

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check of the run as a whole, with its verdict, summary, findings and advice."""
        return self.judgement.checks

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the checks found wrong or unknown, each with the request or server concerned."""
        return tuple(finding for check in self.checks for finding in check.findings)

    @property
    def outputs(self) -> Outputs:
        """How many outputs were compared with teacher forcing, and with which result."""
        return self.judgement.outputs

    @property
    def latencies(self) -> Latencies:
        """The load's latencies as arrays, in seconds."""
        return latencies(under_test(self.history))

    def html(self) -> str:
        """A page about the run for a browser: one file that needs no network."""
        # Most callers want no page, and its libraries take a while to import.
        from harness.reports.html.run_page import run_page  # noqa: PLC0415

        return run_page(self)

    def save_html(self, path: str | Path) -> Path:
        """Write the page to a file; returns its path. Raises OSError."""
        write_atomically(Path(path), self.html())
        return Path(path)

    def __str__(self) -> str:
        return "\n".join(plain_lines(self.overview))


_EXIT_CODES = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


def exit_code(verdict: Verdict, *, died: bool) -> ExitCode:
    """The exit code for a verdict; 4 if the verdict is unknown and a process died that the harness had started."""
    return ExitCode.HARNESS if died and verdict is Verdict.UNKNOWN else _EXIT_CODES[verdict]


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

    ``load``: by default, derived from the history. ``rows``: the catalogue's table, if workloads ran.
    """
    measured = under_test(history)
    latency, detail = latency_report(measured), latency_detail(measured)
    load = load or LoadSettings(len(measured))
    good = goodput(measured, load.goodput, _found_wrong(judgement)) if load.goodput else None
    verdict = overall(rows) if rows else judgement.verdict
    content = result(deployment, history, judgement, latency, detail, load)
    content["verdict"] = verdict.value
    if good is not None:
        content |= good.as_keys()
    if rows:
        content["workloads"] = [row.as_json for row in rows]
    overview = make_overview(deployment, history, judgement, latency, detail, run_dir=run_dir, rows=rows, good=good)
    identity = identity_of(deployment, history, verdict, overview.again, load.label, run_dir)
    return Report(
        deployment,
        history,
        judgement,
        verdict,
        tuple(rows),
        content,
        overview,
        identity,
        catalogue_junit(rows, identity) if rows else junit_xml(history, judgement, identity),
        run_dir,
        good,
    )


def _found_wrong(judgement: Judgement) -> set[str]:
    """Requests whose outputs were found wrong."""
    wrong = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK)
    found = (finding for check in judgement.checks for finding in check.findings)
    return {finding.request for finding in found if finding.request is not None and finding.kind in wrong}


def print_report(report: Report, *, plain: bool = False, stream: TextIO | None = None) -> None:
    """Print the overview to ``stream`` (default: stdout), as plain lines if ``plain`` or if it is not a terminal."""
    stream = stream or sys.stdout
    if plain:
        stream.writelines(f"{line}\n" for line in plain_lines(report.overview))
    else:
        print_overview(report.overview, Console(file=stream, highlight=False))
