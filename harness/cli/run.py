"""``python -m harness [run]``: deployment, load, judgement, report."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from harness.checkers import judge
from harness.cli.interrupted import end_interrupted
from harness.cli.loads import demands, load_scenario, read_dataset, verified
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import LoadOptions, Options
from harness.cli.outcome import settings_of, show, store_report
from harness.cli.stored import stored_run
from harness.errors import ExitCode, UsageError
from harness.facts import Deployment
from harness.history import Entry, History
from harness.loads.dataset import NAME as DATASET
from harness.loads.dataset import Line
from harness.reports import make_report
from harness.scenario import Scenario
from harness.store import RunStore
from harness.store.noise_file import add_noise, noise_key, read_noise
from harness.verdict import Judgement, Verdict
from harness.verify.judging import control_outputs


async def run(options: Options) -> ExitCode:
    """One run, from nothing to its verdict."""
    # Before anything is started: a bad line is told at once.
    lines = read_dataset(options.load.dataset) if options.load.dataset else ()
    with stored_run(options, label=options.report.label or "", seed=options.load.seed) as store:
        try:
            deployment, history = await _measured(options, store, lines)
        except asyncio.CancelledError:
            return end_interrupted(store, options)[0]
        judgement = judge(deployment, history)
        report = make_report(deployment, history, judgement, store.path, settings_of(options, history))
        store_report(report, options.report, store.path)
        _keep_noise(options.load, deployment, history, judgement)
        return show(report, plain=options.report.plain)


async def _measured(options: Options, store: RunStore, lines: Sequence[Line]) -> tuple[Deployment, History]:
    salt = fresh_salt()

    def choose(deployment: Deployment, history: Callable[[], History]) -> Iterable[Scenario]:
        scenario = load_scenario(options.load, deployment, lines, salt=salt)
        return verified(scenario, options.load, deployment, history, salt=salt)

    names = (DATASET if lines else "random_load",)
    wanted = demands(options.load, lines)
    return await measure(options, store, choose, names, partial(_known, options.load), demands=wanted)


def _known(load: LoadOptions, deployment: Deployment, now: float) -> Iterable[Entry]:
    if load.noise_floor is not None and (known := read_noise(load.noise_floor, _key(load, deployment), now)):
        yield known


def _key(load: LoadOptions, deployment: Deployment) -> dict[str, str]:
    return noise_key(deployment, load.concurrency)


def _keep_noise(load: LoadOptions, deployment: Deployment, history: History, judgement: Judgement) -> None:
    """Keep the control arm of a run that came to its end and whose outputs were right; no other measures noise."""
    right = any(check.name == "outputs" and check.verdict is Verdict.VALID for check in judgement.checks)
    if load.noise_floor is None or not right or history.ended_early:
        return
    if outputs := control_outputs(history):
        try:
            add_noise(load.noise_floor, _key(load, deployment), outputs)
        except (OSError, UsageError) as error:
            # The verdict stands, whatever becomes of the file.
            print(f"The noise was not kept: {error}", file=sys.stderr)
