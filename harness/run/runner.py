"""Runs scenarios: sends each request when it is due, and records the operations.

The runner knows neither HTTP nor files: callers pass ``send``, ``counters`` and ``record``. Each operation that was
recorded as sent is also recorded as ended, unless the process is killed.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.clock import Clock
from harness.errors import HarnessError
from harness.history import Ended, Ending, Entry, Outcome, PhaseStarted, Sent
from harness.observer import SILENT, PhasePlan, RunObserver
from harness.run.arrivals import Arrivals, arrivals_of, arriving
from harness.run.conversations import Conversations, Unanswered, next_turns
from harness.run.references import References
from harness.scenario import Phase, Request, Scenario

Sender = Callable[[Request], Awaitable[Ended]]
"""Sends a request and returns how it ended."""


class CounterReader(Protocol):
    """Reads the deployment's counters."""

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        """Wait until the deployment has settled, or until a deadline, and record every server's counters."""

    def disturbed(self) -> None:
        """Note that requests are about to be sent, so that the last reading is out of date."""


async def run_scenario(  # noqa: PLR0913 - the runner is where all parts meet; keyword-only
    scenario: Scenario,
    *,
    send: Sender,
    counters: CounterReader,
    record: Callable[[Entry], None],
    clock: Clock,
    observer: RunObserver = SILENT,
    load: "Loading | None" = None,
) -> None:
    """Run the scenario's phases, one after another.

    If ``send`` raises, the operation ends as INFO. If the run is cancelled, or ``record`` or ``counters`` raise, all
    operations in flight are recorded as INFO ("interrupted") before the exception is passed on.
    Raises HarnessError if two requests have the same id: the history identifies operations by their ids.
    ``load``: how each phase's requests are sent; None: :func:`load_here`.
    """
    _refuse_equal_ids(scenario)
    conversations, references = Conversations(_requests(scenario)), References(_requests(scenario))
    unsent: set[str] = set()
    for phase in scenario.phases:
        run = PhaseRun(scenario.name, _without(phase, unsent), send, record, clock, observer, conversations, references)
        record(PhaseStarted(clock.now(), scenario.name, phase.name))
        if phase.counted or phase.watched:
            await counters.read(scenario=scenario.name, phase=phase.name, label=_label(phase, "before"))
        counters.disturbed()
        await (load or load_here)(run)
        if phase.counted or phase.watched:
            await counters.read(scenario=scenario.name, phase=phase.name, label=_label(phase, "after"))
        unsent |= run.unsent


def _label(phase: Phase, when: str) -> str:
    """The label of a reading. Checkers ignore the ``watched`` labels of phases that are not counted."""
    return when if phase.counted else f"watched-{when}"


@dataclass(frozen=True, slots=True)
class _Session:
    """A request and the requests that continue it; most requests are continued by none."""

    first: Request
    turns: Mapping[str, Request]
    """The request that continues another one, by the other one's id."""
    began: float
    """When the phase began to send."""


async def _at_once() -> None:
    """Do not wait."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class PhaseRun:
    """The sending of one phase: what it needs, and how far it is."""

    scenario: str
    phase: Phase
    send: Sender
    record: Callable[[Entry], None]
    clock: Clock
    observer: RunObserver
    conversations: Conversations
    references: References = field(default_factory=lambda: References(()))
    ended: int = 0
    over: bool = False
    """Whether all of the phase's own requests that were sent have ended."""
    failed: int = 0
    """Operations that did not end OK, background requests included."""
    unsent: set[str] = field(default_factory=set)
    """Ids of requests that were never sent: background requests that were left when the phase's own requests had ended,
    and the phase's own requests for which its time did not suffice."""
    after_failure: Callable[[], Awaitable[None]] = _at_once
    """What a client waits for after a request that did not complete, before the next request takes its place."""
    goes_on: Callable[[], bool] = _never
    """Whether requests are sent although the phase's time is over."""

    @property
    def holds_back(self) -> bool:
        """Whether a client waits for anything after a request that did not complete."""
        return self.after_failure is not _at_once

    def announce(self) -> None:
        """Tell the observer that the phase begins."""
        phase, every = self.phase, (*self.phase.requests, *self.phase.background)
        of_load = bool(every) and all(request.of_load for request in every)
        last_due = phase.due[-1] if phase.due else None
        what = (self.scenario, phase.name, len(phase.requests))
        self.observer.sending(PhasePlan(*what, of_load, phase.concurrency, last_due, phase.seconds))
        self.observer.phase(*what)

    async def load(self, arrivals: Arrivals) -> None:
        """Send all of the phase's requests when they are due, and wait until they have ended."""
        self.announce()
        self.unsent = {request.request_id for request in (*self.phase.requests, *self.phase.background)}
        supply = iter(self.phase.background)
        try:
            async with asyncio.TaskGroup() as beside:
                for _ in range(self.phase.background_concurrency):
                    beside.create_task(self._keep_busy(supply))
                # The first background requests are sent before the phase's own.
                await asyncio.sleep(0)
                await self._fire(arrivals)
                self.over = True
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _fire(self, arrivals: Arrivals) -> None:
        began = self.clock.now()
        turns = next_turns(self.phase)
        async with asyncio.TaskGroup() as group, aclosing(arrivals.due(arriving(self.phase))) as due:
            async for request, intended_at in due:
                if self._too_late(began):
                    break
                self.unsent.discard(request.request_id)
                session = _Session(request, turns, began)
                group.create_task(self._foreground(session, intended_at, arrivals))

    def _too_late(self, began: float) -> bool:
        late = self.phase.seconds is not None and self.clock.now() - began >= self.phase.seconds
        return late and not self.goes_on()

    async def _foreground(self, session: "_Session", intended_at: float, arrivals: Arrivals) -> None:
        """Send a request and, one after another, the requests that continue it."""
        request: Request | None = session.first
        allowed_at = arrivals.allowed_at(session.first)
        while request is not None:
            self.unsent.discard(request.request_id)
            completed = await self._operate(request, intended_at, allowed_at)
            self.ended += 1
            self.observer.advance(self.ended, len(self.phase.requests), self.failed)
            if not completed:
                await self.after_failure()
            request, allowed_at = session.turns.get(request.request_id), None
            if request is not None:
                intended_at = self.clock.now() + self.phase.think_times[request.request_id]
                await self.clock.sleep(max(0.0, intended_at - self.clock.now()))
                request = None if self._too_late(session.began) else request
        arrivals.ended()

    async def _keep_busy(self, supply: Iterator[Request]) -> None:
        while not self.over and self.ended < len(self.phase.requests) and (request := next(supply, None)):
            self.unsent.discard(request.request_id)
            await self._operate(request, self.clock.now())

    async def _operate(self, request: Request, intended_at: float, allowed_at: float | None = None) -> bool:
        """Send one request; whether it completed."""
        try:
            request = self.references.whole(self.conversations.whole(request))
        except Unanswered as why:
            self._sent(request, intended_at, allowed_at)
            self._ended(self._end(request, Outcome.FAIL, Ending.NOT_SENT, str(why)))
            return False
        self._sent(request, intended_at, allowed_at)
        ended = await self._outcome(request)
        self._ended(ended)
        self.conversations.remember(request, ended)
        self.references.remember(request, ended)
        return ended.outcome is Outcome.OK

    def _sent(self, request: Request, intended_at: float, allowed_at: float | None) -> None:
        self.record(Sent(self.clock.now(), request, self.scenario, self.phase.name, intended_at, allowed_at))

    def _ended(self, ended: Ended) -> None:
        self.failed += ended.outcome is not Outcome.OK and ended.ending is not Ending.LEFT
        self.record(ended)

    async def _outcome(self, request: Request) -> Ended:
        try:
            return await self.send(request)
        except asyncio.CancelledError:
            self._ended(self._end(request, Outcome.INFO, Ending.INTERRUPTED, "interrupted"))
            raise
        except Exception as error:  # noqa: BLE001 - a crash of the client ends one operation, not the run
            cause = f"the client crashed: {type(error).__name__}: {error}"
            return self._end(request, Outcome.INFO, Ending.CLIENT_CRASHED, cause)

    def _end(self, request: Request, outcome: Outcome, ending: Ending, cause: str) -> Ended:
        return Ended(self.clock.now(), request.request_id, outcome, cause, ending=ending)


Loading = Callable[[PhaseRun], Awaitable[None]]
"""Sends a phase's requests: here, or by other processes."""


async def load_here(run: PhaseRun) -> None:
    """Send the phase's requests from this process."""
    await run.load(arrivals_of(run.phase, run.clock))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that was raised first; the other tasks were cancelled because of it."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _requests(scenario: Scenario) -> Iterator[Request]:
    for phase in scenario.phases:
        yield from phase.requests
        yield from phase.background


def _without(phase: Phase, unsent: set[str]) -> Phase:
    """The phase without the requests that verify an unsent background request."""
    if not unsent:
        return phase
    return replace(phase, requests=tuple(one for one in phase.requests if one.about not in unsent))


def _refuse_equal_ids(scenario: Scenario) -> None:
    times = Counter(request.request_id for request in _requests(scenario))
    request_id, most = max(times.items(), key=lambda item: item[1], default=("", 0))
    if most > 1:
        raise HarnessError(
            f"The scenario {scenario.name} uses the request id {request_id!r} {most} times. Operations need "
            "different ids: give each request its own id."
        )
