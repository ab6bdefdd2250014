"""One deployment, brought up, asked and left again; what happened is stored as it happens."""

import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from harness.cli.checkout import own_commit
from harness.cli.crash import ungrouped
from harness.cli.options import Options
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.facts import Deployment
from harness.history import DeadProcess, Entry, History, Noted, RunEnded, RunStarted
from harness.preflight import Demand, Item, Level
from harness.reports import Progress, make_progress
from harness.run.fire import Firing, OnProgress, Watch, fire
from harness.run.recorder import Recorder
from harness.scenario import Phase, Scenario
from harness.store import RunStore

Choose = Callable[[Deployment, Callable[[], History]], Iterable[Scenario]]
"""What to run, once it is known on what. Taken one by one, so that a later one may depend on the history so far."""


Known = Callable[[Deployment, float], Iterable[Entry]]
"""What is known of a deployment before anything is asked; called with the time of the run's clock."""


async def measure(  # noqa: PLR0913 - what is run, where, and what is known beforehand
    options: Options,
    store: RunStore,
    choose: Choose,
    names: tuple[str, ...],
    known: Known = lambda _deployment, _now: (),
    *,
    demands: Sequence[Demand] = (),
) -> tuple[Deployment, History]:
    """Run what ``choose`` chooses; ``names``: of the scenarios that may be among it.

    ``demands``: what they ask of the servers, as far as it is known; NotReady where it is more than these can give.
    """
    clock = MonotonicClock()
    record = Recorder(store.record)
    record(start_of(options.argv, seed=options.load.seed, names=names))
    with ungrouped(), make_progress(plain=options.report.plain, clock=clock) as progress:

        def on_checked(items: Sequence[Item]) -> None:
            for item in items:
                if item.level in (Level.WARNS, Level.UNKNOWN):
                    record(Noted(clock.now(), f"before the run: {item}"))
                    progress.note(f"{item.level}: {item}")

        around = Surroundings(store.path, clock, progress.deploy, demands, on_checked)
        async with open_session(options.target, around) as session:
            store.save_deployment(session.deployment)
            record(Noted(clock.now(), f"ready after {clock.now():.1f} s"))
            for entry in known(session.deployment, clock.now()):
                record(entry)
            scenarios = choose(session.deployment, lambda: record.history)
            await _fire(scenarios, session, options.firing, Watch(record, clock, _shown(progress, record)))
    return session.deployment, record.history


def fresh_salt() -> str:
    """New for each run: the deployment may outlive it."""
    return f"run-{time.time_ns():x}"


async def _fire(scenarios: Iterable[Scenario], session: Session, how: Firing, watch: Watch) -> None:
    record, clock = watch.record, watch.clock
    interrupted = True
    try:
        await fire(scenarios, session.deployment, how, watch)
        interrupted = False
    finally:
        died = tuple(DeadProcess(*one) for one in session.nursery.dead().items())
        record(RunEnded(clock.now(), interrupted=interrupted, died=died))


def _shown(progress: Progress, record: Recorder) -> OnProgress:
    def on_progress(scenario: Scenario, ended: int, total: int, phase: Phase) -> None:
        if ended == 0:
            progress.phase(scenario.name, phase.name, total)
        progress.advance(ended, total, record.failed)

    return on_progress


def start_of(argv: tuple[str, ...], *, seed: int, names: tuple[str, ...]) -> RunStarted:
    """The first entry of a run that begins now."""
    return RunStarted(
        wall=time.time(), argv=argv, seed=seed, harness_version=_version(), commit=own_commit(), scenarios=names
    )


def _version() -> str:
    """The installed harness's; a checkout that runs uninstalled is told by its commit."""
    try:
        return version("pd-harness")
    except PackageNotFoundError:
        return "uninstalled"
