"""Judges a stored run again from its history and its deployment's facts. Sends and writes nothing."""

import contextlib
import io
from pathlib import Path

from harness.catalogue.choice import catalogue, ready_pairs
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.checkers import judge
from harness.cli.options import Options, parse
from harness.errors import HarnessError
from harness.facts import Deployment
from harness.history import History, PhaseStarted
from harness.reports import LoadSettings, Report, Row, make_report
from harness.reports.measured import run_started, under_test
from harness.reports.rows import AS_GIVEN, rows_of, skipped_row, unknown_row
from harness.store import load_run
from harness.verdict import Check, Judgement, Verdict

_ENDED = Check("completion", Verdict.UNKNOWN, "the run ended before this workload began")
"""A workload that did not begin is unknown: without its row, half a catalogue would look like all of it."""


def rejudge(run_dir: Path) -> Report:
    """The run's report by this version of the harness. Raises UsageError if the directory holds no run to judge."""
    deployment, history = load_run(run_dir)
    judgement = judge(deployment, history)
    where = run_dir.parent / run_dir.readlink() if run_dir.is_symlink() else run_dir
    options = _options(history)
    settings = None if options is None else settings_of(options, history)
    rows = _rows(deployment, history, judgement, options)
    return make_report(deployment, history, judgement, where, settings, rows=rows)


def settings_of(options: Options, history: History) -> LoadSettings:
    """The load that the command line asks for."""
    load = options.load
    return LoadSettings(
        num_prompts=getattr(load, "num_prompts", None) or len(under_test(history)),
        max_concurrency=load.concurrency,
        arrival=None if load.arrival is None else load.arrival.keys,
        goodput=options.goodput,
        label=options.report.label,
        metadata=options.report.metadata,
        detailed=options.report.save_detailed,
    )


def _options(history: History) -> Options | None:
    """The run's command line; None if another version wrote it and this version cannot read it."""
    try:
        # argparse prints an error for an unknown flag.
        with contextlib.redirect_stderr(io.StringIO()):
            return parse(run_started(history).argv)
    except (HarnessError, SystemExit):
        return None


def _rows(deployment: Deployment, history: History, judgement: Judgement, options: Options | None) -> list[Row]:
    """A row for each planned workload, in their order; then a row for results that belong to no workload."""
    known = {entry.name: entry for entry in (*catalogue(), *ready_pairs())}
    planned = [known[name] for name in run_started(history).scenarios if name in known]
    if not planned:
        return []
    name = _deployment_name(planned, options)
    begun = {started.scenario for started in history.of(PhaseStarted)}
    left = {entry: _not_run(entry, deployment, name) for entry in planned if entry.name not in begun}
    return rows_of(planned, name, left=left, deployment=deployment, history=history, whole=judgement)


def _deployment_name(planned: list[Workload], options: Options | None) -> str:
    """The deployment's name in the run's own table."""
    if options is None:
        return AS_GIVEN
    if options.catalogue.everywhere:
        # Each deployment has a run of its own.
        return planned[0].home
    return options.catalogue.preset or AS_GIVEN


def _not_run(entry: Workload, deployment: Deployment, name: str) -> Row:
    if why := unmet(entry.needs, deployment):
        return skipped_row(entry, name, why)
    return unknown_row(entry, name, _ENDED)
