"""A deployment held up for tests, which are not asynchronous: its event loop has a thread of its own.

All of a session's workloads are one history: what an earlier one left in the caches is known when a later one is
judged.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.catalogue.choice import choose
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.catalogue.setting import Setting
from harness.checkers import judge, judge_scenario, of_run
from harness.cli.measure import fresh_salt
from harness.cli.options import Options, parse
from harness.cli.verify_workloads import verified
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import DeadProcess, History, RunEnded, RunStarted
from harness.run.fire import Watch, fire
from harness.run.recorder import Recorder
from harness.scenario import Phase, Request, Scenario
from harness.verdict import Judgement, KnownFault

T = TypeVar("T")
Runnable = str | Workload | Callable[[Setting], Scenario]


class Lacking(Exception):  # noqa: N818 - reads as what is the matter
    """The deployment lacks what a workload needs."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One workload, run and judged."""

    name: str
    judgement: Judgement
    known_fault: KnownFault | None = None


class HeldDeployment:
    """What tests see of the deployment: its facts, and a way to run something on it."""

    def __init__(
        self,
        facts: Deployment,
        options: Options,
        call: Callable[[Coroutine[Any, Any, None]], None],
        dead: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """``dead``: how each process ended that the harness had started and that had ended by itself, by name."""
        self.facts = facts
        """Servers, block sizes, connectors."""
        self._dead = dead
        self._options = options
        self._call = call
        self._clock = MonotonicClock()
        self._record = Recorder()
        self._record(RunStarted(0.0, options.argv, options.load.seed, "pytest", None, ()))
        self._salt = fresh_salt()
        self._runs = 0

    def require_block_size(self, told: str | None) -> None:
        """Raises UsageError where a server's block size is not the one that was told."""
        for server in self.facts.servers if told else ():
            if str(server.block_size) != told:
                raise UsageError(
                    f"BLOCK_SIZE is {told}, and {server.name} at {server.url} says that its blocks have "
                    f"{server.block_size} tokens. Unset BLOCK_SIZE: it is read off the servers."
                )

    def run(self, what: Runnable) -> Ran:
        """Run a workload, by name, or whatever makes a scenario of a setting; judge it.

        Raises:
            Lacking: the deployment lacks something that the workload needs.
            UsageError: no workload, or more than one, has this name.

        """
        entry = _the_one(what) if isinstance(what, str) else what
        if isinstance(entry, Workload) and (why := unmet(entry.needs, self.facts)):
            raise Lacking(f"{entry.name}: {why}")
        self._runs += 1
        setting = Setting.of(self.facts, seed=self._options.load.seed, salt=f"{self._salt}-{self._runs}")
        scenario = _numbered(entry(setting), self._runs)
        how, watch = self._options.firing, Watch(self._record, self._clock)
        salt = f"{setting.salt}-verification"
        scenarios = verified([scenario], self.facts, lambda: self._record.history, self._options.load, salt=salt)
        before = len(self._record.history.entries)
        self._call(fire(scenarios, self.facts, how, watch))
        return self._judged(scenario.name, entry if isinstance(entry, Workload) else None, before)

    def _judged(self, name: str, entry: Workload | None, before: int) -> Ran:
        """``before``: how many entries of the session are older."""
        ended = RunEnded(self._clock.now(), died=tuple(DeadProcess(*one) for one in self._dead().items()))
        history = History((*self._record.history.entries, ended))
        whole = judge(self.facts, history)
        provokes = None if entry is None else entry.provokes
        judgement = judge_scenario(self.facts, history, whole, name, provokes=provokes)
        # What is in doubt about all of it, the client's own health among it, is in doubt about this workload.
        rest = of_run(self.facts, History(history.entries[before:]), {name: judgement})
        if rest is not None:
            judgement = replace(judgement, checks=(*judgement.checks, *rest.checks))
        return Ran(name, judgement, None if entry is None else entry.known_fault)


@contextmanager
def holding(argv: Sequence[str], directory: Path) -> Iterator[HeldDeployment]:
    """Launch or attach, as ``python -m harness ARGV`` would, and hold it; logs go to ``directory``."""
    options = parse(["run", *argv])
    directory.mkdir(parents=True, exist_ok=True)
    with _loop_in_a_thread() as submit:
        stop = asyncio.Event()
        ready: Future[Session] = Future()
        held = submit(_hold(options, directory, ready, stop))
        held.add_done_callback(lambda ended: _pass_on(ended, ready))
        try:
            session = ready.result()
            yield HeldDeployment(session.deployment, options, lambda work: submit(work).result(), session.nursery.dead)
        finally:
            submit(_set(stop)).result()
            if ready.exception() is None:
                held.result()


async def _hold(options: Options, directory: Path, ready: "Future[Session]", stop: asyncio.Event) -> None:
    around = Surroundings(directory, MonotonicClock(), lambda _server, _text, _seconds: None)
    async with open_session(options.target, around) as session:
        ready.set_result(session)
        await stop.wait()


def _pass_on(ended: "Future[None]", ready: "Future[Session]") -> None:
    """Whoever waits for the deployment learns that it did not come up."""
    error = ended.exception()
    if error is not None and not ready.done():
        ready.set_exception(error)


async def _set(event: asyncio.Event) -> None:
    event.set()


@contextmanager
def _loop_in_a_thread() -> Iterator[Callable[[Coroutine[Any, Any, T]], "Future[T]"]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="pd-harness", daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop)
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _the_one(name: str) -> Workload:
    found = choose([name])
    if len(found) != 1:
        raise UsageError(f"{name!r} is not one workload but {len(found)}: run them one by one.")
    return found[0]


def _numbered(scenario: Scenario, number: int) -> Scenario:
    """The same workload may run twice in a session: its name and ids get the run's number."""
    phases = tuple(_numbered_phase(phase, number) for phase in scenario.phases)
    return replace(scenario, name=f"{scenario.name}#{number}", phases=phases)


def _numbered_phase(phase: Phase, number: int) -> Phase:
    def numbered(request: Request) -> Request:
        return replace(
            request,
            request_id=f"{request.request_id}#{number}",
            about=request.about and f"{request.about}#{number}",
            continues=request.continues and f"{request.continues}#{number}",
        )

    return replace(
        phase,
        requests=tuple(map(numbered, phase.requests)),
        background=tuple(map(numbered, phase.background)),
    )
