"""A phase with a limit of time sends nothing after it, waits for what is in flight, and records nothing unsent."""

import asyncio
from dataclasses import replace

from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.history import Ended, Ending, Outcome, Sent
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun, load_here, run_scenario
from harness.scenario import Phase, Request, Scenario


def phase(name: str, size: int, concurrency: int = 1, seconds: float | None = None) -> Phase:
    asked = tuple(Request(f"{name}-{n}", (n,)) for n in range(size))
    return Phase(name, asked, concurrency, counted=False, seconds=seconds)


async def carried_out(*phases: Phase, each: float) -> tuple[list[str], list[str], float]:
    """Ids of requests that were sent and that ended, and the time at the end; each request takes ``each`` seconds."""
    clock, journal = JumpingClock(), Journal()

    async def send(request: Request) -> Ended:
        await clock.sleep(each)
        return Ended(clock.now(), request.request_id, Outcome.OK)

    async with asyncio.timeout(10):
        await run_scenario(
            Scenario("s", "to test", phases), send=send, counters=journal, record=journal.record, clock=clock
        )
    sent = [entry.request.request_id for entry in journal if isinstance(entry, Sent)]
    ended = [entry.request_id for entry in journal if isinstance(entry, Ended) and entry.ending is Ending.COMPLETED]
    return sent, ended, clock.now()


async def test_no_request_is_sent_after_the_time_is_over() -> None:
    sent, ended, at = await carried_out(phase("p", 100, seconds=10.0), each=2.0)
    assert sent == ended == [f"p-{n}" for n in range(5)]
    assert at == 10.0


async def test_requests_in_flight_are_waited_for() -> None:
    sent, ended, _ = await carried_out(phase("p", 100, concurrency=8, seconds=10.0), each=2.0)
    assert sorted(sent) == sorted(ended)
    assert len(sent) <= 5 + 8


async def test_the_time_of_each_phase_begins_with_it() -> None:
    sent, _, _ = await carried_out(phase("p", 3, seconds=10.0), phase("q", 100, seconds=4.0), each=2.0)
    assert sent == ["p-0", "p-1", "p-2", "q-0", "q-1"]


async def test_without_a_limit_everything_is_sent() -> None:
    assert len((await carried_out(phase("p", 100), each=1000.0))[0]) == 100


async def test_no_time_sends_nothing() -> None:
    assert (await carried_out(phase("p", 3, seconds=0.0), each=1.0))[0] == []


async def test_requests_about_one_that_was_not_sent_are_left_out() -> None:
    about = replace(Request("about", (1,)), about="p-9")
    sent, _, _ = await carried_out(phase("p", 10, seconds=4.0), Phase("q", (about,), counted=False), each=2.0)
    assert sent == ["p-0", "p-1"]


async def test_what_verifies_or_repeats_an_unsent_request_is_not_sent() -> None:
    again = phase("again", 100)
    again = replace(again, requests=tuple(replace(one, about=f"p-{n}") for n, one in enumerate(again.requests)))
    sent, _, _ = await carried_out(phase("p", 100, seconds=4.0), again, each=2.0)
    assert sent == ["p-0", "p-1", "again-0", "again-1"]


async def test_the_time_is_extended_for_as_long_as_something_needs_the_load() -> None:
    clock, sent = JumpingClock(), []

    async def send(request: Request) -> Ended:
        sent.append(request.request_id)
        await clock.sleep(2.0)
        return Ended(clock.now(), request.request_id, Outcome.OK)

    asked = phase("p", 100, seconds=4.0)
    run = PhaseRun("s", asked, send, Journal().record, clock, SILENT, Conversations(asked.requests))
    run.goes_on = lambda: clock.now() < 10
    await load_here(run)
    assert sent == [f"p-{n}" for n in range(5)]
