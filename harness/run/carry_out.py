"""The function that carries out scenarios on a deployment, and its result."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from harness.checkers import Predictions, Source, judge
from harness.clock import Clock
from harness.facts import Deployment
from harness.history import DeadProcess, Decoding, History, Noted, RunEnded, VerificationPlanned
from harness.load.extra_body import shifts
from harness.memo import forget
from harness.observe.states import ServerStates
from harness.observer import SILENT, RunObserver
from harness.run.recorder import Recorder
from harness.run.runner import Loading, PhaseRun, load_here, run_scenario
from harness.run.transport import Sending, Transport, over_http
from harness.scenario import Scenario
from harness.verdict import Judgement
from harness.verify.asking import VerifyOptions, verified


@dataclass(frozen=True)
class Carried:
    """A run that has ended."""

    deployment: Deployment
    history: History
    predictions: Source | None = None
    """Where the predictions of counters may come from, so that judging takes less time."""

    @cached_property
    def judgement(self) -> Judgement:
        """All checks of the run. Made at first use, so that a launched deployment can be ended before."""
        return judge(self.deployment, self.history, predictions=self.predictions)


class Predicting(Protocol):
    """Predicts counters while a run goes on: ``harness.beside.Beside``."""

    def begin(self, scenario: Scenario, deployment: Deployment) -> str:
        """The scenario is about to begin; returns what was decided, in words, or nothing."""

    def predictions(self) -> Predictions | None:
        """The predictions for the run, which has ended; None if there are none."""


async def carry_out(  # noqa: PLR0913 - keyword-only, and all but three have defaults
    scenarios: Iterable[Scenario],
    deployment: Deployment,
    *,
    sending: Sending,
    verify: VerifyOptions | None,
    record: Recorder,
    clock: Clock,
    observer: RunObserver = SILENT,
    transport: Transport | None = None,
    died: Callable[[], Iterable[DeadProcess]] = tuple,
    ended: Callable[[], Mapping[str, int]] = dict,
    load: Loading | None = None,
    beside: Predicting | None = None,
) -> Carried:
    """Run the scenarios one after another, verify their answers, and record everything.

    ``verify``: how the answers are verified; None: not at all.
    ``transport``: how requests are sent and counters are read; None: over HTTP.
    ``load``: how a phase's requests are sent; None: from this process.
    ``beside``: predicts counters while the run goes on; None: they are predicted when the run is judged.
    ``died``: called at the end; returns the processes that the harness started and that ended by themselves.
    ``ended``: called while the run goes on; returns the exit statuses of such processes that have ended for any reason.
    A cancelled run is recorded as interrupted before the cancellation is passed on.
    """
    if verify is not None:
        scenarios = verified(
            scenarios,
            deployment,
            lambda: record.history,
            verify,
            now=clock.now,
            tell=lambda planned: _tell(planned, record, observer),
            tell_so_far=None if observer is SILENT else observer.verified,
        )
        if verify.policy.bound:
            observer.note(f"verification: {verify.policy.bound}")
    ended_by_itself = False
    complete = deployment.end_tokens_complete
    record(Decoding(clock.now(), deployment.end_token_ids, shifts(sending.extra_body), ends_complete=complete))
    opened = over_http(deployment, sending, record, clock) if transport is None else nullcontext(transport)
    told, followed = ExitStack(), AsyncExitStack()
    if observer is not SILENT:
        told.enter_context(record.telling(observer.recorded))
    try:
        async with opened as using, followed:
            if observer is not SILENT and transport is None:
                states = ServerStates(deployment.servers, clock, observer.server, ended)
                told.enter_context(record.telling(states.recorded))
                await followed.enter_async_context(states.followed(sending.headers))
            try:
                for scenario in scenarios:
                    if beside is not None and (decided := beside.begin(scenario, deployment)):
                        record(Noted(clock.now(), decided))
                    await run_scenario(
                        scenario,
                        send=using.send,
                        counters=using.counters,
                        record=record,
                        clock=clock,
                        observer=observer,
                        load=_watched(load or load_here, using),
                    )
            finally:
                # An interrupted run needs this entry, too, since its earlier part is judged.
                record(using.health(one.sent for one in record.history.operations() if one.request.of_load))
        ended_by_itself = True
    finally:
        known = set(record.history.died)
        dead = tuple(one for one in died() if one not in known)
        with told:
            record(RunEnded(clock.now(), interrupted=not ended_by_itself, died=dead))
    # What planning remembered would otherwise take memory beside what judging needs.
    forget()
    return Carried(deployment, record.history, None if beside is None else beside.predictions)


def _watched(load: Loading, using: Transport) -> Loading:
    """The same loading; the client's health is measured while requests of the load are sent."""

    async def loading(run: PhaseRun) -> None:
        phase = run.phase
        of_load = any(request.of_load for request in (*phase.requests, *phase.background))
        async with using.watching() if of_load else nullcontext():
            await load(run)

    return loading


def _tell(planned: VerificationPlanned, record: Recorder, observer: RunObserver) -> None:
    record(planned)
    observer.verifying(planned.expected, planned.seconds, planned.tokens)
