"""A deployment for the tests of one pytest session.

All workloads of a session share one history, so that a later workload is judged with the knowledge of what earlier ones
left in the caches.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.api.loop import LoopThread
from harness.catalogue.choice import choose
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.catalogue.setting import Setting
from harness.checkers import judge_rest, judge_scenario
from harness.cli.options import Options, parse
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import DeadProcess, History
from harness.run import Carried, Recorder, carry_out, fresh_salt, run_started_now
from harness.scenario import Phase, Request, Scenario
from harness.verdict import Judgement, KnownFault

Runnable = str | Workload | Callable[[Setting], Scenario]


class Lacking(Exception):  # noqa: N818 - reads as what happened
    """The deployment lacks something that a workload needs."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One workload, run and judged."""

    name: str
    judgement: Judgement
    known_fault: KnownFault | None = None


class HeldDeployment:
    """The deployment as tests see it: its facts, and a method that runs a workload."""

    def __init__(
        self,
        facts: Deployment,
        options: Options,
        call: Callable[[Coroutine[Any, Any, Carried]], Carried],
        died: Callable[[], tuple[DeadProcess, ...]] = tuple,
    ) -> None:
        """``died`` returns the processes that the harness started and that ended by themselves."""
        self.facts = facts
        """Servers, block sizes, connectors."""
        self._options, self._call, self._died = options, call, died
        self._clock = MonotonicClock()
        self._record = Recorder(entries=[run_started_now(options.argv, seed=options.load.seed, names=())])
        self._salt = fresh_salt()
        self._runs = 0

    def require_block_size(self, expected: str | None) -> None:
        """Raise UsageError if a server's block size is not the expected one. None: every block size is right."""
        for server in self.facts.servers if expected else ():
            if str(server.block_size) != expected:
                raise UsageError(
                    f"BLOCK_SIZE is {expected}, but {server.name} at {server.url} reports blocks of "
                    f"{server.block_size} tokens. Unset BLOCK_SIZE: the harness reads it from the servers."
                )

    def run(self, what: Runnable) -> Ran:
        """Run and judge a workload, given by its name or as a function that makes a scenario from a setting.

        Raises:
            Lacking: the deployment lacks something that the workload needs.
            UsageError: no workload, or more than one, has this name.

        """
        entry = _the_one(what) if isinstance(what, str) else what
        if isinstance(entry, Workload) and (why := unmet(entry.needs, self.facts)):
            raise Lacking(f"{entry.name}: {why}")
        if isinstance(entry, Workload) and entry.alone:
            raise Lacking(f"{entry.name}: it may end a server, which later tests need")
        self._runs += 1
        seed, salt = self._options.load.seed, f"{self._salt}-{self._runs}"
        scenario = _numbered(entry(Setting.of(self.facts, seed=seed, salt=salt)), self._runs)
        verify = self._options.verify(self.facts, f"{salt}-verification", everything=True)
        earlier = len(self._record.history.entries)
        carried = self._call(
            carry_out(
                [scenario],
                self.facts,
                sending=self._options.sending,
                # Probing tiers empties the prefix caches, which the counters of later workloads are predicted from.
                verify=replace(verify, probe_tiers=False),
                record=self._record,
                clock=self._clock,
                died=self._died,
            )
        )
        return judged(carried, scenario.name, entry if isinstance(entry, Workload) else None, earlier)


def judged(carried: Carried, name: str, entry: Workload | None, earlier: int) -> Ran:
    """The judgement of the session's last workload; ``earlier``: number of history entries before this workload."""
    deployment, history = carried.deployment, carried.history
    provokes = None if entry is None else entry.provokes
    judgement = judge_scenario(deployment, history, carried.judgement, name, provokes=provokes)
    # Checks of this part of the session as a whole, for instance of the client's health, are added to the workload.
    rest = judge_rest(deployment, History(history.entries[earlier:]), None, {name: judgement})
    if rest is not None:
        judgement = replace(judgement, checks=(*judgement.checks, *rest.checks))
    return Ran(name, judgement, None if entry is None else entry.known_fault)


@contextmanager
def holding(argv: Sequence[str], directory: Path) -> Iterator[HeldDeployment]:
    """Launch or attach as ``python -m harness ARGV`` would, until the context ends; ``directory`` is for the logs."""
    options = parse(["run", *argv])
    directory.mkdir(parents=True, exist_ok=True)
    loop = LoopThread()
    try:
        with loop.inside(open_session(options.target, Surroundings(directory, MonotonicClock()))) as session:
            yield HeldDeployment(session.deployment, options, loop.call, session.died)
    finally:
        loop.close()


def _the_one(name: str) -> Workload:
    found = choose([name])
    if len(found) != 1:
        raise UsageError(f"{name!r} names {len(found)} workloads: run them one by one.")
    if found[0].faults:
        raise UsageError(f"{name} comes with faults: run it with python -m harness --workload {name}.")
    return found[0]


def _numbered(scenario: Scenario, number: int) -> Scenario:
    """The scenario with ``number`` in its name and ids, since a workload may run several times in a session."""
    phases = tuple(_numbered_phase(phase, number) for phase in scenario.phases)
    return replace(scenario, name=f"{scenario.name}#{number}", phases=phases)


def _numbered_phase(phase: Phase, number: int) -> Phase:
    def numbered(request: Request) -> Request:
        return replace(
            request,
            request_id=f"{request.request_id}#{number}",
            about=request.about and f"{request.about}#{number}",
            continues=request.continues and f"{request.continues}#{number}",
            reference_of=request.reference_of and f"{request.reference_of}#{number}",
        )

    requests, background = (tuple(map(numbered, group)) for group in (phase.requests, phase.background))
    return replace(phase, requests=requests, background=background)
