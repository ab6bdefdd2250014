"""Faults are begun, observed and healed beside a load, whatever happens to either."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from counted_run import DEPLOYMENT
from hand_clock import HandClock

from harness.faults import FaultPlan, Nemesis, NoEvidence, Site
from harness.history import Entry, FaultBegan, FaultHealed, FaultPlanned, FaultProved, Tolerated
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
        self.task = asyncio.create_task(_awaited(nemesis.beside(self._load), run))

    async def _load(self, _run: PhaseRun) -> None:
        await self.over

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
