"""Faults that do nothing: a run under any of them must end unknown, whatever else is right.

Nothing that a fault does reaches its target here: signals are lost, or go to a sleeping child in place of the server,
relays relay whatever they are told, clients stay, nothing expires, nothing comes of it. All faults are struck in a few
runs on one simulated pair; then each is judged by itself, in the history without the others.

A kind of fault that is added, or a form of one, has to be broken here too: the last test of this module sees to it.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

import pytest

import harness
from harness.api import deployment as api
from harness.checkers import judge
from harness.deploy.nursery import Nursery
from harness.faults import KINDS, USUAL, FaultPlan, Site, churn, final_reads, parse_fault, relays_for
from harness.faults import lease as lease_fault
from harness.faults import link as link_fault
from harness.faults.fault import OfLoad
from harness.faults.metrics_spoiled import Spoiling
from harness.faults.pause import _PARTS
from harness.faults.plan import PROVOKED
from harness.faults.proc import ProcessTable
from harness.faults.relay_control import RelayControl
from harness.faults.relay_manner import How
from harness.history import Entry, FaultBegan, FaultHealed, FaultPlanned, FaultProved, History
from harness.load import client as load_client
from harness.scenario import Moment
from harness.verdict import Verdict

PROCESSES = ("prefill-0", "decode-0", "proxy")
SERVERS = PROCESSES[:2]
PATIENCE_S = 0.3
"""Seconds that are waited for what never comes."""
Patch = pytest.MonkeyPatch

ENGINES = tuple(f"pause:server={one},part=engine" for one in SERVERS)
WHOLE = tuple(
    f"{fault}:server={one}{options}"
    for one in PROCESSES
    for fault, options in (("pause", ""), ("kill", ""), ("drain", f",grace={PATIENCE_S}"))
)
LINKS = tuple(
    f"link:link={one},how={how},idle=0.1"
    for one in (*SERVERS, link_fault.SIDE_CHANNEL)
    for how in How
    if how is not How.PASS
)
METRICS = tuple(f"metrics:server={one},how={how}" for one in SERVERS for how in Spoiling if how is not Spoiling.NOTHING)
CLIENTS = tuple(f"cancel:share=0.3,moment={moment}" for moment in Moment)
LEASE = "lease:server=decode-0"
SLOWED = tuple(f"link:link=decode-0,how=delay,ms=20,alone=target,provokes={counter}" for counter in PROVOKED)


# --- how faults are kept from doing anything ---


@contextmanager
def lost(patch: Patch) -> Iterator[None]:
    """Signals are lost, relays pass bytes whatever they are told, clients stay."""

    async def passes(relays: RelayControl, name: str, **_order: object) -> Mapping[str, float]:
        return await relays.counted(name)

    patch.setattr(ProcessTable, "send", lambda *_: True)
    patch.setattr(RelayControl, "tell", passes)
    patch.setattr(load_client, "Leaving", lambda _request, receiver: receiver)
    patch.setattr(load_client, "left_in_time", lambda _seconds: nullcontext())
    yield


@contextmanager
def asleep(patch: Patch, *, beside: bool = False) -> Iterator[None]:
    """Signals go to a child that sleeps, one for each fault. ``beside``: beside the server's first process."""
    children: list[subprocess.Popen[bytes]] = []
    mine: ContextVar[subprocess.Popen[bytes]] = ContextVar("mine")
    pids = Nursery.pids

    def found(nursery: Nursery, name: str) -> tuple[int, ...]:
        # The tasks of one fault share a context.
        if (child := mine.get(None)) is None:
            children.append(child := subprocess.Popen(["sleep", "600"]))
            mine.set(child)
        alive = (child.pid,) if child.poll() is None else ()
        return (*pids(nursery, name)[:1], *alive) if beside else alive

    patch.setattr(Nursery, "pids", found)
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


@contextmanager
def without_expiry(patch: Patch) -> Iterator[None]:
    """Prefill counts no expired request, although decode is stopped."""

    async def counted(_site: Site) -> Mapping[str, float]:
        return {"prefill-0": 5.0}

    patch.setattr(lease_fault, "_expired", counted)
    yield


@contextmanager
def without_churn(patch: Patch) -> Iterator[None]:
    """Requests expire, but nothing is sent beside the load that would take their blocks."""
    patch.setattr(lease_fault, "_PATIENCE_S", 10.0)
    patch.setattr(final_reads, "churned", lambda phase, _prefix="": phase)
    yield


@contextmanager
def without_effect(_patch: Patch) -> Iterator[None]:
    """The fault takes hold, and nothing comes of it."""
    yield


WORLDS: Mapping[str, tuple[Callable[[Patch], AbstractContextManager[None]], tuple[str, ...]]] = {
    "lost": (lost, (*WHOLE, *ENGINES, *LINKS, *METRICS, *CLIENTS, LEASE)),
    "asleep": (asleep, WHOLE),
    "asleep beside the server": (partial(asleep, beside=True), (*ENGINES, LEASE)),
    "no expiry": (without_expiry, (LEASE,)),
    "no churn": (without_churn, (LEASE,)),
    "no effect": (without_effect, SLOWED),
}
CASES = [(world, form) for world, (_, forms) in WORLDS.items() for form in forms]


# --- the runs ---


class Runs:
    """A simulated pair, and one run of it for each world, made when it is asked for."""

    def __init__(self, deployment: harness.RunningDeployment) -> None:
        self._deployment = deployment
        self._made: dict[str, harness.Report] = {}

    def of(self, world: str) -> harness.Report:
        if world not in self._made:
            self._made[world] = self._run(*WORLDS[world])
        return self._made[world]

    def _run(self, breaks: Callable[[Patch], AbstractContextManager[None]], forms: tuple[str, ...]) -> harness.Report:
        # It lasts until the faults that take turns are over.
        load = harness.RandomLoad(num_prompts=400, seconds=0.7, concurrency=8, input_len=(20, 30), output_len=8)
        with Patch.context() as patch, breaks(patch):
            patch.setattr(api, "Site", partial(Site, patience=PATIENCE_S))
            if lease_fault._PATIENCE_S > 10:
                patch.setattr(lease_fault, "_PATIENCE_S", PATIENCE_S)
            patch.setattr(churn, "_SUPPLY", 40)
            # What caches hold afterwards is not asked here.
            patch.setattr(final_reads, "_reads", lambda *_: ())
            patch.setattr(link_fault, "_SIDE_CHANNEL_PATIENCE_S", PATIENCE_S)
            # What was not ended is not started again.
            patch.setattr(Nursery, "will_end", lambda *_: None)
            patch.setattr(Nursery, "restart", _restart)
            return self._deployment.run(load, verify="budget:1s", faults=[_soon(form) for form in forms])


async def _restart(_nursery: Nursery, _name: str) -> None:
    """Do nothing."""


def _soon(form: str) -> str:
    return form if isinstance(parse_fault(form).fault, OfLoad) else f"{form},after=0.05,for=0.05"


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    relays = relays_for([parse_fault(form) for _, form in CASES])
    lease = {"kv_lease_duration": 1}
    with harness.simulate(separate_processes=True, relays=relays, nixl_config=lease) as deployment:
        yield Runs(deployment)


def alone(history: History, fault: str) -> History:
    """The history without the other faults."""
    steps = (FaultPlanned, FaultBegan, FaultProved, FaultHealed)

    def kept(entry: Entry) -> bool:
        return not isinstance(entry, steps) or entry.fault == fault

    return History(tuple(filter(kept, history.entries)))


@pytest.mark.slow
@pytest.mark.parametrize(("world", "form"), CASES, ids=[f"{world}: {form}" for world, form in CASES])
def test_a_run_under_a_fault_that_does_nothing_is_unknown(runs: Runs, world: str, form: str) -> None:
    report = runs.of(world)
    assert report.verdict is Verdict.UNKNOWN
    index = WORLDS[world][1].index(form)
    planned = list(report.history.of(FaultPlanned))[index]
    history = alone(report.history, planned.fault)
    judgement = judge(report.deployment, history)
    (check,) = (one for one in judgement.checks if one.name == "faults")
    assert [*history.of(FaultBegan)], "it must have been tried"
    assert bool([*history.of(FaultProved)]) is (world == "no effect"), [*history.of(FaultProved)]
    assert check.verdict is Verdict.UNKNOWN, check.summary
    assert judgement.verdict is Verdict.UNKNOWN, [(one.name, one.summary) for one in judgement.checks]


def told(plan: FaultPlan) -> tuple[str, ...]:
    """What tells one form of a fault from another."""
    fault = plan.fault
    return fault.kind, fault.target, *(str(getattr(fault, name, "")) for name in ("how", "moment", "part"))


def test_every_kind_and_form_of_fault_has_a_broken_target() -> None:
    broken = {told(parse_fault(form)) for _, form in CASES}
    assert {kind for kind, *_ in broken} == set(KINDS)
    assert {told(parse_fault(form)) for form in USUAL} <= broken
    assert {parse_fault(form).provokes for _, form in CASES} >= set(PROVOKED)
    parts = {part for kind, *_, part in broken if kind == "pause"}
    assert parts == set(_PARTS)
