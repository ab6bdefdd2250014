"""Faults that join workloads: which phase is struck, under which names, and what is read afterwards."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import counted_run as run
import pytest
from hand_clock import HandClock

from harness.catalogue.choice import catalogue, choose, ready_pairs
from harness.catalogue.setting import Setting
from harness.faults import FaultPlan, Nemesis, Site, faults_of_workloads, joined, parse_fault
from harness.history import Entry, FaultHealed, FaultPlanned, FaultProved, Tolerated
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Altered, Phase, Purpose, Request, Route, Scenario

SETTING = Setting(
    prefill_block_size=16, decode_block_size=16, vocab_size=5_000, tier_blocks=8, batch_tokens=64, prefill_blocks=48
)


def asked(name: str, count: int, route: Route = Route.PROXY) -> tuple[Request, ...]:
    return tuple(Request(f"{name}-{n}", (len(name), n), route=route) for n in range(count))


def scenario(name: str, *phases: Phase) -> Scenario:
    return Scenario(name, "", phases or (Phase("load", asked(name, 2)),))


def under(one: Scenario, fault: str = "pause") -> Scenario:
    [made] = joined([one], run.DEPLOYMENT, faults_of_workloads({one.name: [fault]}, ()))
    return made


def test_the_largest_phase_of_the_path_under_test_is_struck_and_no_other() -> None:
    small, large, beside = Phase("s", asked("s", 2)), Phase("l", asked("l", 3)), asked("d", 9, Route.PREFILL)
    made = under(scenario("w", small, large, Phase("direct", beside), Phase("after", asked("a", 3))))
    assert [phase.name for phase in made.phases if phase.faulted] == ["after"], "of equal ones, the last"
    assert [phase.name for phase in under(scenario("w", Phase("direct", beside))).phases if phase.faulted] == ["direct"]


def test_only_the_named_workloads_are_sent_under_a_fault() -> None:
    both = [scenario("with"), scenario("without")]
    struck, left = joined(both, run.DEPLOYMENT, faults_of_workloads({"with": ["pause"]}, ()))
    assert any(phase.faulted for phase in struck.phases)
    assert left is both[1]


def test_each_workload_has_its_own_faults_and_those_of_all() -> None:
    plans = faults_of_workloads({"a": ["kill"], "b": []}, [parse_fault("pause")])
    assert [(plan.workload, plan.fault.kind) for plan in plans] == [("a", "kill"), ("a", "pause"), ("b", "pause")]


def test_each_prompt_is_read_once_as_a_plain_request() -> None:
    first, again, long, held = asked("r", 4)
    same = replace(again, prompt=first.prompt)
    refused = replace(long, expect_status=400)
    bad = replace(held, reference_of="r-0", altered=Altered.TOO_FEW, may_be_refused=True, route=Route.DECODE)
    follows = Request("r-9", (9,), continues="r-0")
    made = under(scenario("w", Phase("one", (first, refused, bad)), Phase("two", (same, follows))))
    [read] = [phase for phase in made.phases if phase.name == "final read, decode-cache"]
    assert [one.about for one in read.requests] == ["r-1", "r-3"], "the newest first, each prompt once"
    assert all(one.route is Route.PROXY and one.altered is one.reference_of is None for one in read.requests)
    assert not any(one.may_be_refused for one in read.requests)


def test_requests_of_several_workloads_have_different_ids() -> None:
    plans = faults_of_workloads({"a": ["lease"], "b": ["lease"]}, ())
    made = joined([scenario("a"), scenario("b")], run.DEPLOYMENT, plans)
    ids = Counter(one.request_id for s in made for phase in s.phases for one in (*phase.requests, *phase.background))
    assert ids.most_common(1)[0][1] == 1
    resets = [one for s in made for phase in s.phases for one in phase.requests if one.purpose is Purpose.RESET]
    assert len(resets) == 4


@pytest.mark.parametrize("needs", ["continues", "reference_of"])
def test_a_request_that_another_one_needs_does_not_leave(needs: str) -> None:
    first, second = asked("r", 2)
    later = replace(second, **{needs: first.request_id})
    made = under(scenario("w", Phase("one", (first,)), Phase("two", (later,))), "cancel:share=1,moment=transfer")
    other = under(scenario("w", Phase("one", (first,))), "cancel:share=1,moment=transfer")
    assert [one.leaves for phase in made.phases[:1] for one in phase.requests] == [None]
    assert other.phases[0].requests[0].leaves is not None


@dataclass
class Counting:
    """A fault that remembers how often it was struck."""

    kind: ClassVar[str] = "counting"
    tolerates: tuple[Tolerated, ...] = ()
    target: str = "decode-0"
    text: str = "count"
    struck: int = 0

    async def strike(self, site: Site) -> str:  # noqa: ARG002 - as for all faults
        self.struck += 1
        return f"struck {self.struck}"

    async def heal(self, site: Site) -> str:  # noqa: ARG002 - as for all faults
        return f"healed {self.struck}"


async def test_each_workload_is_struck_under_a_name_of_its_own_by_a_fresh_fault() -> None:
    clock, entries = HandClock(), list[Entry]()
    fault = FaultPlan(Counting(), after=0, seconds=0)
    plans = [replace(fault, workload=name) for name in ("a", "b")]
    nemesis = Nemesis(plans, Site(run.DEPLOYMENT, clock), entries.append)

    async def load(_run: PhaseRun) -> None:
        await clock.advance(clock.now() + 1)

    async def never(_request: Request) -> None:
        raise AssertionError

    for name in ("a", "b", "c"):
        phase = Phase("load", asked(name, 1), faulted=True)
        sent = PhaseRun(name, phase, never, entries.append, clock, SILENT, Conversations(()))  # type: ignore[arg-type]
        await nemesis.beside(load)(sent)
    planned = [(one.fault, one.scenario) for one in entries if isinstance(one, FaultPlanned)]
    assert planned == [("a/counting-1", "a"), ("b/counting-1", "b")]
    assert [one.evidence for one in entries if isinstance(one, FaultProved)] == ["struck 1"] * 2
    assert [one.text for one in entries if isinstance(one, FaultHealed)] == ["healed 1"] * 2


def test_ready_pairs_can_be_read_and_are_chosen_by_name_only() -> None:
    pairs = ready_pairs()
    assert len(pairs) >= 4
    kinds = {parse_fault(text).fault.kind for pair in pairs for text in pair.faults}
    assert kinds >= {"pause", "kill", "cancel", "drain"}
    for pair in pairs:
        assert choose([pair.name]) == (pair,)
        assert any(phase.requests for phase in pair(SETTING).phases)
    assert choose(["pairs"]) == pairs
    assert choose(["*"]) == catalogue()
    assert not set(pairs) & set(catalogue())
