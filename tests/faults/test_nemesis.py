"""Faults are begun, observed and healed beside a load, whatever happens to either."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from counted_run import DEPLOYMENT
from hand_clock import HandClock

from harness.faults import FaultPlan, Nemesis, NoEvidence, Site
from harness.faults.turns import Alone
from harness.history import (
    Ended,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    Outcome,
    Sent,
    Tolerated,
)
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Phase, Request


@dataclass
class Toy:
    """A fault that tells what is done to it."""

    kind: ClassVar[str] = "toy"
    tolerates: tuple[Tolerated, ...] = (Tolerated.ERRORS,)
    target: str = "decode-0"
    text: str = "play"
    evidence: str | Exception = "it plays"
    healing: str | Exception = "it stopped"
    calls: list[str] = field(default_factory=list)
    wait_before_healed: asyncio.Event | None = None

    async def strike(self, site: Site) -> str:
        self.calls.append(f"strike at {site.clock.now():g}")
        if isinstance(self.evidence, Exception):
            raise self.evidence
        return self.evidence

    async def heal(self, site: Site) -> str:
        if self.wait_before_healed is not None:
            await self.wait_before_healed.wait()
        self.calls.append(f"heal at {site.clock.now():g}")
        if isinstance(self.healing, Exception):
            raise self.healing
        return self.healing


class Run:
    """A load that lasts until the test ends it, with faults beside it."""

    def __init__(self, *plans: FaultPlan, faulted: bool = True) -> None:
        self.clock = HandClock()
        self.entries: list[Entry] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        nemesis = Nemesis(plans, Site(DEPLOYMENT, self.clock), self.entries.append)
        phase = Phase("load", (Request("r", (1,)),), faulted=faulted)
        run = PhaseRun("s", phase, _never, self.entries.append, self.clock, SILENT, Conversations(()))
        self.phase_run = run
        self.task = asyncio.create_task(_awaited(nemesis.beside(self._load), run))

    async def _load(self, _run: PhaseRun) -> None:
        await self.over

    def serve(self, request_id: str, sent_at: float, ended_at: float) -> None:
        self.phase_run.record(Sent(sent_at, Request(request_id, (1,)), "s", "load", sent_at))
        self.phase_run.record(Ended(ended_at, request_id, Outcome.OK))

    def kinds(self) -> list[type[Entry]]:
        return [type(entry) for entry in self.entries]

    def last(self) -> FaultHealed:
        healed = self.entries[-1]
        assert isinstance(healed, FaultHealed)
        return healed


async def _never(_request: Request) -> None:  # type: ignore[misc] # a sender that is never called
    raise AssertionError


async def _awaited(loading: Callable[[PhaseRun], object], run: PhaseRun) -> None:
    await loading(run)  # type: ignore[misc] # a Loading


async def test_a_fault_is_struck_when_due_and_healed_after_its_time() -> None:
    toy = Toy()
    run = Run(FaultPlan(toy, after=2, seconds=3))
    await run.clock.advance(1.9)
    assert run.kinds() == [FaultPlanned]
    await run.clock.advance(4.9)
    assert toy.calls == ["strike at 2"]
    await run.clock.advance(5)
    assert toy.calls == ["strike at 2", "heal at 5"]
    assert run.kinds() == [FaultPlanned, FaultBegan, FaultProved, FaultHealed]
    assert run.last().healed
    run.over.set_result(None)
    await run.task


@dataclass
class Preparing(Toy):
    """A fault that reads something beforehand."""

    async def prepare(self, site: Site) -> None:
        self.calls.append(f"prepare at {site.clock.now():g}")


async def test_what_a_fault_needs_to_read_is_read_before_its_moment() -> None:
    toy = Preparing()
    run = Run(FaultPlan(toy, after=2))
    await run.clock.advance(2)
    assert toy.calls == ["prepare at 0", "strike at 2"]
    run.over.set_result(None)
    await run.task


async def test_a_load_that_ends_first_heals_the_fault_at_once() -> None:
    toy = Toy()
    run = Run(FaultPlan(toy, after=2, seconds=300))
    await run.clock.advance(3)
    run.over.set_result(None)
    await run.task
    assert toy.calls == ["strike at 2", "heal at 3"]
    assert run.last().healed


async def test_a_load_that_ends_before_the_fault_leaves_only_the_plan() -> None:
    toy = Toy()
    run = Run(FaultPlan(toy, after=2))
    await run.clock.advance(1)
    run.over.set_result(None)
    await run.task
    assert not toy.calls
    assert run.kinds() == [FaultPlanned]


async def test_a_fault_without_evidence_is_healed_and_says_why() -> None:
    run = Run(FaultPlan(Toy(evidence=NoEvidence("it still answers")), after=0))
    await run.clock.advance(0.1)
    assert run.kinds() == [FaultPlanned, FaultBegan, FaultHealed]
    assert "it still answers" in run.last().text
    run.over.set_result(None)
    await run.task


async def test_the_moment_alone_is_no_evidence() -> None:
    """Of a fault that was struck after a request had ended, and did nothing, only the moment can be told."""
    run = Run(FaultPlan(Toy(evidence=""), after=0, seconds=1, ended=1))
    run.phase_run.ended = 1
    await run.clock.advance(0.1)
    assert run.kinds() == [FaultPlanned, FaultBegan, FaultHealed]
    assert "it was not observed that the fault took hold: nothing was observed" in run.last().text
    run.over.set_result(None)
    await run.task


async def test_a_healing_that_fails_is_recorded_as_such() -> None:
    run = Run(FaultPlan(Toy(healing=NoEvidence("still stopped")), after=0, seconds=0))
    await run.clock.advance(0.1)
    assert not run.last().healed
    assert run.last().text == "still stopped"
    run.over.set_result(None)
    await run.task


async def test_an_interrupted_run_waits_for_the_healing() -> None:
    toy = Toy(wait_before_healed=asyncio.Event())
    run = Run(FaultPlan(toy, after=0, seconds=300))
    await run.clock.advance(1)
    run.task.cancel()
    await run.clock.advance(2)
    run.task.cancel()
    await run.clock.advance(3)
    assert not run.task.done()
    assert toy.wait_before_healed is not None
    toy.wait_before_healed.set()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert toy.calls == ["strike at 0", "heal at 3"]


async def test_an_unforeseen_error_of_a_fault_ends_the_run_after_healing() -> None:
    toy = Toy(evidence=ZeroDivisionError("oops"))
    run = Run(FaultPlan(toy, after=0))
    await run.clock.advance(1)
    run.over.set_result(None)
    with pytest.raises(ZeroDivisionError):
        await run.task
    assert toy.calls[-1].startswith("heal")


async def test_two_faults_of_one_kind_have_names_of_their_own() -> None:
    run = Run(FaultPlan(Toy(), after=1), FaultPlan(Toy(), after=2))
    await run.clock.advance(0)
    assert [entry.fault for entry in run.entries if isinstance(entry, FaultPlanned)] == ["toy-1", "toy-2"]
    run.over.set_result(None)
    await run.task


async def test_only_the_load_is_sent_under_faults() -> None:
    toy = Toy()
    run = Run(FaultPlan(toy, after=0), faulted=False)
    await run.clock.advance(5)
    run.over.set_result(None)
    await run.task
    assert not run.entries
    assert not toy.calls


async def test_faults_that_take_turns_wait_until_the_load_is_served_again() -> None:
    first, second = Preparing(), Preparing()
    run = Run(*(FaultPlan(toy, after=1, seconds=2, alone=Alone.TARGET) for toy in (first, second)))
    await run.clock.advance(5)
    assert first.calls == ["prepare at 1", "strike at 1", "heal at 3"]
    assert not second.calls
    assert run.phase_run.goes_on()
    run.serve("r-1", sent_at=5, ended_at=6)
    await run.clock.advance(7)
    assert [call.split(" at ")[0] for call in second.calls] == ["prepare", "strike"]
    await run.clock.advance(10)
    run.serve("r-2", sent_at=10, ended_at=10)
    await run.clock.advance(11)
    assert not run.phase_run.goes_on()
    run.over.set_result(None)
    await run.task


async def test_a_request_that_was_sent_before_the_healing_does_not_show_that_the_load_is_served() -> None:
    second = Toy()
    run = Run(*(FaultPlan(toy, after=1, seconds=2, alone=Alone.TARGET) for toy in (Toy(), second)))
    await run.clock.advance(4)
    run.serve("r-1", sent_at=2, ended_at=4)
    await run.clock.advance(10)
    assert not second.calls
    run.over.set_result(None)
    await run.task


async def test_a_deployment_that_serves_nothing_more_does_not_keep_the_turn_for_ever() -> None:
    second = Toy()
    run = Run(*(FaultPlan(toy, after=1, seconds=2, alone=Alone.TARGET) for toy in (Toy(), second)))
    await run.clock.advance(70)
    assert second.calls
    run.over.set_result(None)
    await run.task


async def test_a_load_does_not_go_on_for_faults_that_take_no_turns() -> None:
    run = Run(FaultPlan(Toy(), after=100))
    await run.clock.advance(1)
    assert not run.phase_run.goes_on()
    run.over.set_result(None)
    await run.task
