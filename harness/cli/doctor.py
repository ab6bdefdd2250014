"""``python -m harness doctor``: shows all checks that a run makes before its load.

The command takes the flags of ``run`` and warms the deployment up as a run does. It sends no load and judges no answer.
"""

from collections.abc import Iterator, Sequence

from harness.cli.options import Options
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.errors import ExitCode, HarnessError
from harness.facts import Deployment
from harness.loads import PrefixRepetitionLoad, RandomLoad, TraceLoad
from harness.preflight import Item, Level, NotReady
from harness.reports import make_progress
from harness.run import with_tokens
from harness.store import RunStore

_MARKS = {
    Level.OK: "ok",
    Level.UNREPORTED: "-",
    Level.WARNS: "WARNING",
    Level.UNKNOWN: "UNKNOWN",
    Level.STOPS: "STOPS",
}


async def doctor(options: Options) -> ExitCode:
    """Check and show: 0 if a run can be judged, 2 if the user must change something, 3 if a run would be unknown."""
    # The needs of a workload are checked when it is run.
    load = None if options.catalogue.patterns else options.load
    demands = load.demands() if load else ()
    clock, items = MonotonicClock(), list[Item]()
    failure: HarnessError | None = None
    with (
        RunStore.create(options.report.result_dir, label="doctor", latest=False) as store,
        make_progress(plain=options.report.plain, clock=clock) as progress,
    ):
        around = Surroundings(store.path, clock, progress, demands, items.extend)
        try:
            async with open_session(options.target, around) as session:
                deployment = session.deployment
                random = isinstance(options.load, RandomLoad | PrefixRepetitionLoad | TraceLoad)
                items += _of_the_model(deployment, random=random)
                if load and (deployment.vocab_size is not None or not random):
                    # Nothing is sent. This raises if the load does not fit the deployment.
                    ready = await with_tokens(load, deployment, options.target.headers)
                    ready.scenario(deployment, salt="doctor")
        except HarnessError as error:
            failure = error
    _show(items, failure)
    return _ending(items, failure)


def _of_the_model(deployment: Deployment, *, random: bool) -> Iterator[Item]:
    """Whether the model's configuration is known; a random load needs its vocabulary."""
    give = "Give --model: a directory with the model's config.json, or a hub name in the local cache"
    where = deployment.model_path or "its path is unknown"
    if deployment.vocab_size is None and random:
        yield Item("configuration", Level.STOPS, f"The model's configuration cannot be read here ({where})", give)
    elif deployment.geometry is None:
        yield Item(
            "configuration",
            Level.UNKNOWN,
            f"The size of a KV block in bytes is not known: the model's configuration cannot be read here ({where})",
            give,
        )
    else:
        seen = f"The vocabulary has {deployment.vocab_size or 0:,} tokens; the size of a KV block in bytes is known"
        yield Item("configuration", Level.OK, seen)


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
    if failure is not None or Level.STOPS in levels:
        print("not ready: fix what is marked STOPS, then run doctor again")
        return ExitCode.USAGE if failure is None else failure.exit_code
    if Level.UNKNOWN in levels:
        print("the verdict of a run would be unknown, for the reasons marked UNKNOWN")
        return ExitCode.UNKNOWN
    print("ready")
    return ExitCode.VALID
