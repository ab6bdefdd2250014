"""``python -m harness [run]``: deployment, load, judgement, report."""

import sys
from collections.abc import Callable, Iterable
from functools import partial

from harness.checkers import judge
from harness.checkers.outputs import control_outputs
from harness.cli.loads import load_scenario, read_dataset, verified
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import LoadOptions, Options
from harness.errors import ExitCode, UsageError
from harness.facts import Deployment
from harness.history import Entry, History
from harness.reports import LoadSettings, Report, make_report, print_report
from harness.reports.measured import under_test
from harness.scenario import Scenario
from harness.store import RunStore
from harness.store.noise_file import add_noise, noise_key, read_noise
from harness.verdict import Judgement, Verdict
from workloads.dataset import NAME as DATASET

EXIT = {Verdict.VALID: ExitCode.VALID, Verdict.INVALID: ExitCode.INVALID, Verdict.UNKNOWN: ExitCode.UNKNOWN}


async def run(options: Options) -> ExitCode:
    """One run, from nothing to its verdict."""
    # Before anything is started: a bad line is told at once.
    lines = read_dataset(options.load.dataset) if options.load.dataset else ()
    with RunStore.create(options.report.result_dir, label=options.report.label or "", seed=options.load.seed) as store:
        salt = fresh_salt()

        def choose(deployment: Deployment, history: Callable[[], History]) -> Iterable[Scenario]:
            scenario = load_scenario(options.load, deployment, lines, salt=salt)
            return verified(scenario, options.load, deployment, history, salt=salt)

        names = (DATASET if lines else "random_load",)
        deployment, history = await measure(options, store, choose, names, partial(_known, options.load))
        report = judged(options, store, deployment, history)
    print_report(report, plain=options.report.plain)
    _keep_noise(options.load, deployment, history, report.judgement)
    return EXIT[report.judgement.verdict]


def _known(load: LoadOptions, deployment: Deployment, now: float) -> Iterable[Entry]:
    if load.noise_floor is not None and (known := read_noise(load.noise_floor, _key(load, deployment), now)):
        yield known


def _key(load: LoadOptions, deployment: Deployment) -> dict[str, str]:
    return noise_key(deployment, load.concurrency)


def _keep_noise(load: LoadOptions, deployment: Deployment, history: History, judgement: Judgement) -> None:
    """Keep the control arm of a run that came to its end and whose outputs were right; no other measures noise."""
    right = any(check.name == "outputs" and check.verdict is Verdict.VALID for check in judgement.checks)
    if load.noise_floor is None or not right or history.interrupted:
        return
    if outputs := control_outputs(history):
        try:
            add_noise(load.noise_floor, _key(load, deployment), outputs)
        except (OSError, UsageError) as error:
            # The verdict stands, whatever becomes of the file.
            print(f"The noise was not kept: {error}", file=sys.stderr)


def judged(options: Options, store: RunStore, deployment: Deployment, history: History) -> Report:
    """The run judged, and its reports stored."""
    report = make_report(deployment, history, judge(deployment, history), store.path, settings_of(options, history))
    store.save_result(report.result)
    if options.report.result_filename:
        store.save_result(report.result, str((options.report.result_dir / options.report.result_filename).resolve()))
    if options.report.junit:
        store.save_text(str(options.report.junit.resolve()), report.junit)
    return report


def settings_of(options: Options, history: History) -> LoadSettings:
    """The load as it was asked for."""
    from_file = options.load.dataset is not None
    return LoadSettings(
        num_prompts=len(under_test(history)) if from_file else options.load.num_prompts,
        max_concurrency=options.load.concurrency,
        label=options.report.label,
        metadata=options.report.metadata,
        detailed=options.report.save_detailed,
    )
