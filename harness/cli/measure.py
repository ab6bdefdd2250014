"""A deployment brought up as the command line says, and scenarios carried out on it, with everything stored."""

from collections.abc import Callable, Iterable, Sequence

from harness.cli.crash import ungrouped
from harness.cli.options import Options
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.facts import Deployment
from harness.history import Entry, Noted
from harness.preflight import Demand, Item, Level
from harness.reports import make_progress
from harness.run import Carried, Recorder, VerifyOptions, carry_out, run_started_now
from harness.scenario import Scenario
from harness.store import RunStore

Choose = Callable[[Deployment], tuple[Iterable[Scenario], VerifyOptions | None]]
"""What to run on the deployment, and how to verify it."""
Known = Callable[[Deployment, float], Iterable[Entry]]
"""What is known of the deployment before the run; called with the run's time in seconds."""


async def measure(  # noqa: PLR0913 - what is run and where; the last two have defaults
    options: Options,
    store: RunStore,
    choose: Choose,
    names: tuple[str, ...],
    known: Known = lambda _deployment, _now: (),
    *,
    demands: Sequence[Demand] = (),
) -> Carried:
    """Launch or attach, carry out what ``choose`` chooses, and end what was launched.

    ``names``: of the scenarios that ``choose`` may choose. ``demands``: what they need of the servers, as far as it is
    known beforehand. Raises NotReady if the servers cannot meet them.
    """
    clock = MonotonicClock()
    record = Recorder(store.record)
    record(run_started_now(options.argv, seed=options.load.seed, names=names))
    with ungrouped(), make_progress(plain=options.report.plain, clock=clock) as progress:

        def on_checked(items: Sequence[Item]) -> None:
            for item in items:
                if item.level in (Level.WARNS, Level.UNKNOWN):
                    record(Noted(clock.now(), f"before the run: {item}"))
                    progress.note(f"{item.level}: {item}")

        around = Surroundings(store.path, clock, progress, demands, on_checked)
        async with open_session(options.target, around) as session:
            store.save_deployment(session.deployment)
            record(Noted(clock.now(), f"ready after {clock.now():.1f} s"))
            for entry in known(session.deployment, clock.now()):
                record(entry)
            scenarios, verify = choose(session.deployment)
            return await carry_out(
                scenarios,
                session.deployment,
                sending=options.sending,
                verify=verify,
                record=record,
                clock=clock,
                observer=progress,
                died=session.died,
            )
