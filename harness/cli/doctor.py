"""``python -m harness doctor``: every check that a run makes before its load, shown one by one, ok ones too.

It takes the flags of ``run``, warms the deployment up as a run does, sends no load and judges nothing.
"""

from collections.abc import Iterator, Sequence

from harness.cli.loads import demands, load_scenario, read_dataset
from harness.cli.options import Options
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.errors import ExitCode, HarnessError
from harness.facts import Deployment
from harness.loads.dataset import Line
from harness.preflight import Demand, Item, Level, NotReady
from harness.reports import make_progress
from harness.store import RunStore

_MARKS = {
    Level.OK: "ok",
    Level.UNTOLD: "-",
    Level.WARNS: "WARNING",
    Level.UNKNOWN: "UNKNOWN",
    Level.STOPS: "STOPS",
}


async def doctor(options: Options) -> ExitCode:
    """Look, and show: 0 where a run can be judged, 2 where the user must change something, 3 where it cannot."""
    lines = read_dataset(options.load.dataset) if options.load.dataset else ()
    clock, items = MonotonicClock(), list[Item]()
    failure: HarnessError | None = None
    with (
        RunStore.create(options.report.result_dir, label="doctor", latest=False) as store,
        make_progress(plain=options.report.plain, clock=clock) as progress,
    ):
        around = Surroundings(store.path, clock, progress.deploy, _demands(options, lines), items.extend)
        try:
            async with open_session(options.target, around) as session:
                items += _of_the_model(session.deployment, options)
                _write_load(session.deployment, options, lines)
        except HarnessError as error:
            failure = error
    _show(items, failure)
    return _ending(items, failure)


def _demands(options: Options, lines: Sequence[Line]) -> Sequence[Demand]:
    """Of the catalogue's workloads each says itself what it needs."""
    return () if options.catalogue.patterns else demands(options.load, lines)


def _write_load(deployment: Deployment, options: Options, lines: Sequence[Line]) -> None:
    """The load as a run would send it, for what is refused while it is written; nothing is sent."""
    if not options.catalogue.patterns and (deployment.vocab_size is not None or lines):
        load_scenario(options.load, deployment, lines, salt="doctor")


def _of_the_model(deployment: Deployment, options: Options) -> Iterator[Item]:
    """What a run needs to know of the model, and takes from its configuration."""
    give = "Give --model: a directory with the model's config.json, or a hub name in the local cache"
    where = deployment.model_path or "nowhere"
    if deployment.vocab_size is None and options.load.dataset is None:
        yield Item("configuration", Level.STOPS, f"The model's configuration cannot be read here ({where})", give)
    elif deployment.geometry is None:
        yield Item("configuration", Level.UNKNOWN, f"How many bytes a block has is not known ({where})", give)
    else:
        yield Item(
            "configuration", Level.OK, f"{deployment.vocab_size or 0:,} tokens of vocabulary, bytes per block known"
        )


def _show(items: Sequence[Item], failure: HarnessError | None) -> None:
    width = max((len(item.check) for item in items), default=0)
    for item in items:
        print(f"{_MARKS[item.level]:<8}{item.check:<{width}}  {item.seen}")
        if item.remedy and item.level is not Level.OK:
            print(f"{'':<8}{'':<{width}}  -> {item.remedy}")
    if failure is not None and not isinstance(failure, NotReady):
        print(f"{_MARKS[Level.STOPS]:<8}{failure}")


def _ending(items: Sequence[Item], failure: HarnessError | None) -> ExitCode:
    levels = {item.level for item in items}
    if failure is not None:
        print("not ready: put right what stops a run, and ask again")
        return failure.exit_code
    if Level.STOPS in levels:
        print("not ready: put right what stops a run, and ask again")
        return ExitCode.USAGE
    if Level.UNKNOWN in levels:
        print("a run would end as unknown")
        return ExitCode.UNKNOWN
    print("ready")
    return ExitCode.VALID
