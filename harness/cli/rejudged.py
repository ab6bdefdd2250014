"""A stored run judged again from its history and its deployment's facts; nothing is asked and nothing is written."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from harness.catalogue.choice import catalogue
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.checkers import judge
from harness.cli.options import Options, parse
from harness.cli.outcome import settings_of
from harness.cli.rows import rows_of, skipped_rows, unknown_row
from harness.errors import HarnessError
from harness.facts import Deployment
from harness.history import History, PhaseStarted, RunStarted
from harness.reports import Report, Row, make_report
from harness.store import load_run
from harness.verdict import Check, Judgement, Verdict

AS_GIVEN = "as given"
"""The deployment, in the table, where the command line describes it without naming it."""
_ENDED = Check("completion", Verdict.UNKNOWN, "the run ended before this workload began")
"""Neither run nor to be skipped: to leave it out would let half a catalogue pass for all."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A stored run, as this version sees it."""

    deployment: Deployment
    history: History
    report: Report

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the catalogue's workloads, where the run was of these."""
        return self.report.rows

    @property
    def verdict(self) -> Verdict:
        """As the run itself would have ended."""
        return self.report.verdict


def rejudge(run_dir: Path) -> Rejudged:
    """Raises UsageError where there is no run that could be judged."""
    deployment, history = load_run(run_dir)
    judgement = judge(deployment, history)
    where = run_dir.parent / run_dir.readlink() if run_dir.is_symlink() else run_dir
    options = _options(history)
    settings = None if options is None else settings_of(options, history)
    rows = _rows(deployment, history, judgement, options)
    return Rejudged(deployment, history, make_report(deployment, history, judgement, where, settings, rows=rows))


def run_started(history: History) -> RunStarted:
    """How it began; ``load_run`` has seen to it that the history says so."""
    return next(history.of(RunStarted))


def _options(history: History) -> Options | None:
    """The command line of the run; None where it is another version's and cannot be read."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # argparse prints what it does not know
            return parse(run_started(history).argv)
    except (HarnessError, SystemExit):
        return None


def _rows(deployment: Deployment, history: History, judgement: Judgement, options: Options | None) -> list[Row]:
    """A line for each workload of the catalogue that the run was to run, in its order; then what is nobody's."""
    known = {entry.name: entry for entry in catalogue()}
    meant = [known[name] for name in run_started(history).scenarios if name in known]
    if not meant:
        return []
    name = _deployment_name(meant, options)
    begun = {started.scenario for started in history.of(PhaseStarted)}
    ran = [entry for entry in meant if entry.name in begun]
    by_name = {row.workload: row for row in rows_of(ran, deployment, history, judgement, name)}
    rows = [by_name.pop(one.name) if one.name in by_name else _not_run(one, deployment, name) for one in meant]
    return [*rows, *by_name.values()]


def _deployment_name(meant: list[Workload], options: Options | None) -> str:
    """What the run's own table calls it."""
    if options is None:
        return AS_GIVEN
    if options.catalogue.everywhere:  # each deployment has a run of its own
        return meant[0].home
    return options.catalogue.recipe or AS_GIVEN


def _not_run(entry: Workload, deployment: Deployment, name: str) -> Row:
    if why := unmet(entry.needs, deployment):
        return skipped_rows([entry], name, why)[0]
    return unknown_row(entry, name, _ENDED)
