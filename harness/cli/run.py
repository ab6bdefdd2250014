"""``python -m harness [run]``: deployment, load, judgement, report."""

from collections.abc import Callable, Iterable
from functools import partial

from harness.checkers import judge
from harness.checkers.outputs import control_outputs, count_outputs
from harness.cli.loads import demands, load_scenario, read_dataset, verified
from harness.cli.measure import fresh_salt, measure
from harness.cli.options import LoadOptions, Options
from harness.errors import ExitCode
from harness.facts import Deployment
from harness.history import Entry, History
from harness.reports import LoadSettings, Report, make_report, print_report
from harness.reports.measured import under_test
from harness.scenario import Scenario
from harness.store import RunStore
from harness.store.noise_file import noise_key, read_noise, write_noise
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

        names = (DATASET if lines else "random_load",)
        wanted = demands(options.load, lines)
        deployment, history = await measure(
            options, store, choose, names, partial(_known, options.load), demands=wanted
        )
        _keep_noise(options.load, deployment, history)
        report = judged(options, store, deployment, history)
    print_report(report, plain=options.report.plain)
    return EXIT[report.judgement.verdict]


def _known(load: LoadOptions, deployment: Deployment, now: float) -> Iterable[Entry]:
    if load.noise_floor is not None and load.noise_floor.exists():
        yield read_noise(load.noise_floor, noise_key(deployment, load.concurrency), now)


def _keep_noise(load: LoadOptions, deployment: Deployment, history: History) -> None:
    """A control arm that carries a floor is kept; one that does not would make every later run unknown."""
    if load.noise_floor is not None and not load.noise_floor.exists() and count_outputs(history).noise_floor:
        write_noise(load.noise_floor, noise_key(deployment, load.concurrency), control_outputs(history))


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
