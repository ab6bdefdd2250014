"""``python -m harness check RUN_DIR``: a stored run judged again, offline, by this version's checkers.

The whole evidence is the run's history and its deployment's facts; nothing is asked and nothing is overwritten, unless
``--save`` says so. A run that was killed is judged as far as it went: it cannot be valid.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from harness.checkers import judge
from harness.cli.catalogue import row_as_json, rows_of
from harness.cli.options import Options, parse
from harness.cli.run import EXIT, settings_of
from harness.errors import ExitCode, HarnessError, UsageError
from harness.facts import Deployment
from harness.history import History, PhaseStarted, RunStarted
from harness.reports import LoadSettings, Report, make_report, print_catalogue, print_report
from harness.reports.catalogue import Row, overall
from harness.store import load_run, save_result, save_text
from harness.verdict import Check, Judgement, Outputs, Verdict
from workloads.catalogue import catalogue
from workloads.needs import unmet
from workloads.registry import Workload

NOTHING = Outputs(0, 0, 0, 0, 0)
_AS_STORED = "as stored"
"""The deployment, in the table: a history does not say what it was called."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A stored run, as this version sees it."""

    deployment: Deployment
    history: History
    report: Report
    rows: tuple[Row, ...]
    """Of the catalogue's workloads, where the run was of these."""

    @property
    def verdict(self) -> Verdict:
        """As the run itself would have ended: a catalogue's by its table, in which known faults do not count."""
        return overall(self.rows) if self.rows else self.report.judgement.verdict


async def check(options: Options) -> ExitCode:
    """Load, judge, show."""
    if options.run_dir is None:
        raise UsageError("check needs the directory of a run: python -m harness check runs/latest.")
    run = rejudge(options.run_dir)
    if options.save:
        workloads = {"workloads": [row_as_json(row) for row in run.rows]} if run.rows else {}
        save_result(options.run_dir, run.report.result | workloads)
    if options.report.junit:
        save_text(options.report.junit.resolve(), run.report.junit)
    print_report(run.report, plain=options.report.plain)
    if run.rows:
        print_catalogue(run.rows, plain=options.report.plain)
    return EXIT[run.verdict]


def rejudge(run_dir: Path) -> Rejudged:
    """Raises UsageError where there is no run that could be judged."""
    deployment, history = load_run(run_dir)
    judgement = judge(deployment, history)
    where = run_dir.parent / run_dir.readlink() if run_dir.is_symlink() else run_dir
    report = make_report(deployment, history, judgement, where, _settings(history))
    return Rejudged(deployment, history, report, tuple(_rows(deployment, history, judgement)))


def run_started(history: History) -> RunStarted:
    """How it began; ``load_run`` has seen to it that the history says so."""
    return next(history.of(RunStarted))


def _settings(history: History) -> LoadSettings | None:
    """The load as it was asked for; None where another version's command line cannot be read."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # argparse prints what it does not know
            return settings_of(parse(run_started(history).argv), history)
    except (HarnessError, SystemExit):
        return None


def _rows(deployment: Deployment, history: History, judgement: Judgement) -> list[Row]:
    """A line for each workload of the catalogue that the run was to run, in its order; then what is nobody's."""
    known = {entry.name: entry for entry in catalogue()}
    meant = [known[name] for name in run_started(history).scenarios if name in known]
    begun = {started.scenario for started in history.of(PhaseStarted)}
    ran = [entry for entry in meant if entry.name in begun]
    judged = rows_of(ran, deployment, history, judgement, _AS_STORED)
    by_name = {row.workload: row for row in judged}
    rows = [by_name.pop(one.name) if one.name in by_name else _not_run(one, deployment) for one in meant]
    return [*rows, *by_name.values()]


def _not_run(entry: Workload, deployment: Deployment) -> Row:
    if why := unmet(entry.needs, deployment):
        return Row(entry.name, entry.family, _AS_STORED, skipped=why)
    # Neither run nor to be skipped: the run ended before. To leave it out would let half a catalogue pass for all.
    ended = Check("completion", Verdict.UNKNOWN, "the run ended before this workload began")
    return Row(entry.name, entry.family, _AS_STORED, Judgement((ended,), NOTHING))
