"""Open loops and sessions, with a clock that a test sets: exact times of sending."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
from hand_clock import HandClock
from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.clock import Clock
from harness.errors import HarnessError
from harness.history import Choice, Ended, Outcome
from harness.load.health import worst_send_delay
from harness.run.arrivals import OpenLoop
from harness.run.runner import run_scenario
from harness.scenario import Phase, Request, Scenario


class SlowClock(JumpingClock):
    """Each sleep ends late by so much, or early if the number is negative."""

    def __init__(self, late: float) -> None:
        super().__init__()
        self.late = late

    async def sleep(self, seconds: float) -> None:
        await super().sleep(max(seconds + self.late, seconds / 2) if seconds else 0.0)


def requests(number: int) -> list[Request]:
    return [Request(f"r{n}", (n,)) for n in range(number)]


async def sent_at(loop: OpenLoop, number: int, clock: Clock) -> tuple[list[float], list[float]]:
    """When each request was handed out, and when it was due."""
    seen = [(clock.now(), at) async for _, at in loop.due(requests(number))]
    return [now for now, _ in seen], [at for _, at in seen]


async def test_requests_are_sent_at_their_times() -> None:
    clock = JumpingClock()
    clock.time = 100.0
    sent, due = await sent_at(OpenLoop([0.5, 0.5, 2.0, 7.25], 9, clock), 4, clock)
    assert sent == due == [100.5, 100.5, 102.0, 107.25]


async def test_lateness_does_not_add_up() -> None:
    """Each timer is 0.3 s late; with sleeps between requests, the last would be sent 30 s late."""
    times = [float(second) for second in range(1, 101)]
    clock = SlowClock(0.3)
    sent, due = await sent_at(OpenLoop(times, 100, clock), 100, clock)
    assert due == times
    assert max(now - at for now, at in zip(sent, due, strict=True)) == pytest.approx(0.3)


async def test_a_timer_that_wakes_up_early_sends_nothing_early() -> None:
    clock = SlowClock(-0.4)
    sent, due = await sent_at(OpenLoop([1.0, 2.0, 3.0], 9, clock), 3, clock)
    assert all(now >= at for now, at in zip(sent, due, strict=True))
    assert max(now - at for now, at in zip(sent, due, strict=True)) < 0.01


async def test_a_late_consumer_gets_what_is_due_with_the_time_at_which_it_was_due() -> None:
    clock = JumpingClock()
    due = OpenLoop([1.0, 2.0, 3.0], 9, clock).due(requests(3))
    assert (await anext(due))[1] == 1.0
    clock.time = 10.0
    assert [at async for _, at in due] == [2.0, 3.0]
    assert clock.time == 10.0, "nothing was waited for"


class Held:
    """Holds requests until ``let_go``."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.journal = Journal()
        self.held: dict[str, asyncio.Future[None]] = {}

    async def __call__(self, request: Request) -> Ended:
        self.held[request.request_id] = asyncio.get_running_loop().create_future()
        await self.held[request.request_id]
        return Ended(self.clock.now(), request.request_id, Outcome.OK, choices=(Choice((7,), " yes"),))

    def let_go(self, name: str) -> None:
        self.held.pop(name).set_result(None)

    def run(self, *phases: Phase) -> asyncio.Task[None]:
        """Begin to run the phases."""
        journal = self.journal
        scenario = Scenario("s", "", phases)
        return asyncio.create_task(
            run_scenario(scenario, send=self, counters=journal, record=journal.record, clock=self.clock)
        )


async def test_the_open_loop_does_not_wait_for_answers() -> None:
    send = Held()
    running = send.run(Phase("p", tuple(requests(3)), 3, due=(1.0, 2.0, 3.0)))
    await send.clock.advance(3.5)
    assert set(send.held) == {"r0", "r1", "r2"}
    for name in ("r2", "r0", "r1"):
        send.let_go(name)
    await running
    assert [(one.at, one.intended_at) for one in send.journal.sents()] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    assert {one.allowed_at for one in send.journal.sents()} == {None}


@pytest.mark.parametrize("due", [(1.0,), (1.0, 2.0, 3.0)])
async def test_a_schedule_for_another_number_of_requests_is_refused(due: tuple[float, ...]) -> None:
    with pytest.raises(HarnessError, match="times for 2 requests"):
        await _sessions(Phase("p", tuple(requests(2)), 9, due=due))


async def test_waiting_for_the_limit_counts_as_latency_but_not_as_a_slow_client() -> None:
    send = Held()
    running = send.run(Phase("p", tuple(requests(2)), 1, due=(1.0, 2.0)))
    await send.clock.advance(9.0)
    assert set(send.held) == {"r0"}
    send.let_go("r0")
    await send.clock.advance(9.5)
    send.let_go("r1")
    await running
    second = send.journal.sents()[1]
    assert (second.intended_at, second.at, second.allowed_at) == (2.0, 9.0, 9.0)
    assert worst_send_delay(send.journal.sents()) == 0.0


def turns(number: int, *, of: str) -> list[Request]:
    return [Request(f"{of}{n}", (n,), continues=f"{of}{n - 1}" if n else None) for n in range(number)]


async def answered_at_once(clock: JumpingClock, request: Request, *, failing: Sequence[str] = ()) -> Ended:
    clock.time += 1.0
    outcome = Outcome.INFO if request.request_id in failing else Outcome.OK
    return Ended(clock.now(), request.request_id, outcome, choices=(Choice((7,), " yes"),))


async def _sessions(phase: Phase, *, failing: Sequence[str] = ()) -> Journal:
    clock, journal = JumpingClock(), Journal()
    send = partial(answered_at_once, clock, failing=failing)
    scenario = Scenario("s", "", (phase,))
    await run_scenario(scenario, send=send, counters=journal, record=journal.record, clock=clock)
    return journal


async def test_a_turn_is_sent_a_think_time_after_the_end_of_the_turn_before() -> None:
    phase = Phase("p", tuple(turns(3, of="a")), 1, think_times={"a1": 4.0, "a2": 0.5})
    sents = (await _sessions(phase)).sents()
    # Each answer takes one second.
    assert [(one.at, one.intended_at) for one in sents] == [(0.0, 0.0), (5.0, 5.0), (6.5, 6.5)]
    assert [one.request.prompt for one in sents] == [(0,), (0, 7, 1), (0, 7, 1, 7, 2)]


async def test_a_session_holds_its_slot_while_its_user_thinks() -> None:
    phase = Phase("p", (*turns(2, of="a"), *turns(2, of="b")), 1, think_times={"a1": 9.0, "b1": 9.0})
    assert [one.request.request_id for one in (await _sessions(phase)).sents()] == ["a0", "a1", "b0", "b1"]


async def test_sessions_arrive_at_the_times_of_an_open_loop() -> None:
    thinking = {"a1": 50.0, "b1": 50.0}
    phase = Phase("p", (*turns(2, of="a"), *turns(2, of="b")), 4, due=(2.0, 20.0), think_times=thinking)
    sents = (await _sessions(phase)).sents()
    firsts = {one.request.request_id: one.intended_at for one in sents}
    assert (firsts["a0"], firsts["b0"]) == (2.0, 20.0)


async def test_the_turns_after_one_that_failed_are_not_sent_and_count_as_failed() -> None:
    phase = Phase("p", tuple(turns(3, of="a")), 1, think_times={"a1": 1.0, "a2": 1.0})
    ends = (await _sessions(phase, failing=["a0"])).ends()
    assert {name: end.outcome for name, end in ends.items()} == {
        "a0": Outcome.INFO,
        "a1": Outcome.FAIL,
        "a2": Outcome.FAIL,
    }


async def test_no_turn_is_sent_after_the_time_of_its_phase() -> None:
    phase = Phase("p", tuple(turns(3, of="a")), 1, think_times={"a1": 1.0, "a2": 9.0}, seconds=5.0)
    assert [one.request.request_id for one in (await _sessions(phase)).sents()] == ["a0", "a1"]
