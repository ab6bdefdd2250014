"""``python -m harness [run]``: deployment, load, judgement, report."""

from collections.abc import Callable, Iterable

from harness.checkers import judge
from harness.cli.loads import load_scenario, read_dataset, verified
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import Options
from harness.errors import ExitCode
from harness.facts import Deployment
from harness.history import History
from harness.reports import LoadSettings, Report, make_report, print_report
from harness.reports.measured import under_test
from harness.scenario import Scenario
from harness.store import RunStore
from harness.verdict import Verdict
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

        deployment, history = await measure(options, store, choose, (DATASET if lines else "random_load",))
        report = judged(options, store, deployment, history)
    print_report(report, plain=options.report.plain)
    return EXIT[report.judgement.verdict]


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
