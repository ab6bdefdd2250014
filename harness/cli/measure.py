"""Launches or attaches to the deployment of a command line, and records everything as it happens."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from harness.beside import Beside
from harness.cli.crash import ungrouped
from harness.cli.options import Options
from harness.clock import Clock, MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.facts import Deployment
from harness.faults import Nemesis, Site, control_of, relays_for
from harness.fleet import open_fleet
from harness.history import Noted
from harness.loads.demand import Demand
from harness.observe.values import values_now
from harness.preflight import Item, Level
from harness.reports import make_progress
from harness.run import Carried, Recorder, Sending, carry_out, run_started_now
from harness.run.runner import load_here
from harness.store import RunStore


@dataclass(frozen=True, slots=True)
class Measuring:
    """A deployment that is ready, and a run on it that has begun."""

    deployment: Deployment
    record: Recorder
    clock: Clock
    carry_out: Callable[..., Awaitable[Carried]]
    """:func:`harness.run.carry_out` without its parameters except ``scenarios`` and ``verify``."""


@asynccontextmanager
async def measuring(
    options: Options,
    store: RunStore,
    names: tuple[str, ...],
    demands: Sequence[Demand] = (),
    beside: Beside | None = None,
) -> AsyncIterator[Measuring]:
    """Launch or attach; at the end, end everything that was launched.

    ``names``: the scenarios that the run is about to send. ``demands``: their known requirements on the servers. Raises
    NotReady if the servers do not meet them. ``beside``: predicts counters during the run, and outlives it.
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
        target = replace(options.target, relays=relays_for(options.faults))
        async with (
            open_fleet(options.workers, clock, store.logs) as fleet,
            open_session(target, around) as session,
        ):
            store.save_deployment(session.deployment)
            if fleet is not None:
                await fleet.set_up(session.deployment, options.sending)
            sending = replace(options.sending, metrics_urls=session.relaying.metrics)
            nemesis = Nemesis(options.faults, _site(session, clock, sending), record, progress)
            load = load_here if fleet is None else fleet.load
            record(Noted(clock.now(), f"ready after {clock.now():.1f} s"))
            carrying = partial(
                carry_out,
                deployment=session.deployment,
                sending=sending,
                record=record,
                clock=clock,
                observer=progress,
                died=session.died if fleet is None else lambda: (*session.died(), *fleet.died()),
                ended=session.nursery.ended,
                load=nemesis.beside(load) if options.faults else load,
                beside=None if options.faults else beside,
            )
            try:
                yield Measuring(session.deployment, record, clock, carrying)
            finally:
                await nemesis.end()


def _site(session: Session, clock: Clock, sending: Sending) -> Site:
    """What faults work on."""
    relays = control_of(session.relaying.control, session.relaying.urls, sending.headers)
    values = partial(values_now, session.deployment, clock=clock, headers=sending.headers)
    return Site(session.deployment, clock, session.nursery, relays, values=values, headers=sending.headers)
