"""The runner, with a fake sender, observer and clock."""

import asyncio
import random
from collections import Counter
from functools import partial

import pytest
from jumping_clock import JumpingClock
from observed_journal import Journal
from polling import until

from harness.errors import HarnessError
from harness.history import Ended, Ending, Entry, Outcome, PhaseStarted
from harness.observer import SilentObserver
from harness.run.runner import run_scenario
from harness.scenario import Phase, Request, Scenario


class Servers:
    """Holds every request until ``let_go``; counts the requests that it holds at once."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock
        self.held: dict[str, asyncio.Future[Ended]] = {}
        self.most = 0
        self.asked: Counter[str] = Counter()
        self.came = asyncio.Event()

    async def send(self, request: Request) -> Ended:
        self.asked[request.request_id] += 1
        self.held[request.request_id] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.held))
        self.came.set()
        try:
            return await self.held[request.request_id]
        finally:
            self.held.pop(request.request_id, None)

    def holds(self, number: int) -> bool:
        return len(self.held) == number

    def let_go(self, request_id: str) -> None:
        self.held.pop(request_id).set_result(Ended(self._clock.now(), request_id, Outcome.OK))


def scenario(*phases: Phase) -> Scenario:
    return Scenario("s", "to test", phases)


def phase(size: int, concurrency: int = 1, *, name: str = "p", counted: bool = True) -> Phase:
    return Phase(name, tuple(Request(f"{name}-{n}", (n,)) for n in range(size)), concurrency, counted)


async def at_once(request: Request) -> Ended:
    return Ended(0.0, request.request_id, Outcome.OK)


async def test_phases_run_in_order_each_between_its_readings() -> None:
    journal = Journal()
    phases = scenario(phase(1, name="a"), phase(2, name="b", counted=False), phase(0, name="c"))
    await run_scenario(phases, send=at_once, counters=journal, record=journal.record, clock=JumpingClock())
    assert journal.order == [
        "PhaseStarted",
        ("s", "a", "before"),
        "disturbed",
        "Sent",
        "Ended",
        ("s", "a", "after"),
        "PhaseStarted",
        "disturbed",
        "Sent",
        "Ended",
        "Sent",
        "Ended",
        "PhaseStarted",
        ("s", "c", "before"),
        "disturbed",
        ("s", "c", "after"),
    ]
    assert [entry.phase for entry in journal if isinstance(entry, PhaseStarted)] == ["a", "b", "c"]


@pytest.mark.parametrize(("size", "concurrency"), [(20, 4), (5, 5), (3, 8), (7, 1)])
async def test_concurrency_is_reached_and_never_exceeded(size: int, concurrency: int) -> None:
    clock, journal = JumpingClock(), Journal()
    servers, chance = Servers(clock), random.Random(0)  # noqa: S311 - no secret
    limit = min(size, concurrency)
    run = asyncio.create_task(
        run_scenario(
            scenario(phase(size, concurrency)), send=servers.send, counters=journal, record=journal.record, clock=clock
        )
    )
    for ended in range(size):
        left = min(limit, size - ended)
        await until(partial(servers.holds, left))
        servers.let_go(chance.choice(sorted(servers.held)))
    await run
    assert servers.most == limit
    assert servers.asked == Counter(f"p-{n}" for n in range(size))
    assert set(journal.ends()) == set(servers.asked)


async def test_a_request_is_due_when_a_slot_becomes_free() -> None:
    clock, journal = JumpingClock(), Journal()
    servers = Servers(clock)
    clock.time = 5.0
    run = asyncio.create_task(
        run_scenario(scenario(phase(3, 2)), send=servers.send, counters=journal, record=journal.record, clock=clock)
    )
    await until(lambda: len(servers.held) == 2)
    clock.time = 7.0
    servers.let_go("p-1")
    await until(lambda: "p-2" in servers.held)
    clock.time = 8.0
    servers.let_go("p-0")
    servers.let_go("p-2")
    await run
    assert [(sent.request.request_id, sent.intended_at) for sent in journal.sents()] == [
        ("p-0", 5.0),
        ("p-1", 5.0),
        ("p-2", 7.0),
    ]


async def test_sent_is_recorded_before_sending() -> None:
    journal = Journal()

    async def send(request: Request) -> Ended:
        assert [sent.request for sent in journal.sents()] == [request]
        return await at_once(request)

    await run_scenario(scenario(phase(1)), send=send, counters=journal, record=journal.record, clock=JumpingClock())
    assert journal.ends()["p-0"].outcome is Outcome.OK


async def test_a_crash_of_send_ends_one_operation_and_not_the_run() -> None:
    journal = Journal()

    async def send(request: Request) -> Ended:
        if request.request_id == "p-1":
            raise RuntimeError("boom")
        return await at_once(request)

    await run_scenario(scenario(phase(3)), send=send, counters=journal, record=journal.record, clock=JumpingClock())
    assert [end.outcome for end in journal.ends().values()] == [Outcome.OK, Outcome.INFO, Outcome.OK]
    assert "RuntimeError: boom" in journal.ends()["p-1"].cause


async def test_interrupted_operations_are_recorded_and_the_cancellation_is_passed_on() -> None:
    clock, journal = JumpingClock(), Journal()
    servers = Servers(clock)
    run = asyncio.create_task(
        run_scenario(scenario(phase(5, 2)), send=servers.send, counters=journal, record=journal.record, clock=clock)
    )
    await until(lambda: len(servers.held) == 2)
    servers.let_go("p-0")
    await until(lambda: "p-2" in servers.held)
    clock.time = 3.0
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert journal.ends() == {
        "p-0": Ended(0.0, "p-0", Outcome.OK),
        "p-1": Ended(3.0, "p-1", Outcome.INFO, "interrupted", ending=Ending.INTERRUPTED),
        "p-2": Ended(3.0, "p-2", Outcome.INFO, "interrupted", ending=Ending.INTERRUPTED),
    }
    assert {sent.request.request_id for sent in journal.sents()} == set(journal.ends())
    assert ("s", "p", "after") not in journal.order


async def test_a_journal_that_cannot_be_written_ends_the_run_with_its_own_error() -> None:
    journal = Journal()

    def record(entry: Entry) -> None:
        if isinstance(entry, Ended) and entry.request_id == "p-1":
            raise HarnessError("disk full")
        journal.record(entry)

    with pytest.raises(HarnessError, match="disk full"):
        await run_scenario(scenario(phase(9, 2)), send=at_once, counters=journal, record=record, clock=JumpingClock())


async def test_equal_ids_are_refused_before_anything_is_sent() -> None:
    journal = Journal()
    with pytest.raises(HarnessError, match="'p-0' 2 times"):
        await run_scenario(
            scenario(phase(1), phase(1)), send=at_once, counters=journal, record=journal.record, clock=JumpingClock()
        )
    assert journal == []


async def test_progress_counts_up_within_each_phase() -> None:
    class Watcher(SilentObserver):
        def __init__(self) -> None:
            self.seen: list[object] = []

        def phase(self, scenario: str, phase: str, total: int) -> None:
            self.seen.append((scenario, phase, total))

        def advance(self, done: int, total: int, failed: int) -> None:
            self.seen.append((done, total, failed))

    journal, watcher = Journal(), Watcher()
    await run_scenario(
        scenario(phase(2, name="a"), phase(1, name="b")),
        send=at_once,
        counters=journal,
        record=journal.record,
        clock=JumpingClock(),
        observer=watcher,
    )
    assert watcher.seen == [("s", "a", 2), (1, 2, 0), (2, 2, 0), ("s", "b", 1), (1, 1, 0)]
