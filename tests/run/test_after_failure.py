"""A client whose request did not complete may be held back before the next request takes its place."""

import asyncio

import pytest
from hand_clock import HandClock

from harness.history import Ended, Ending, Outcome
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun, load_here
from harness.scenario import Phase, Request


@pytest.mark.parametrize(
    ("first", "waits"), [(Outcome.OK, False), (Outcome.FAIL, True), (Outcome.INFO, True)], ids=["ok", "fail", "info"]
)
async def test_only_after_a_failure_the_next_request_waits(first: Outcome, waits: bool) -> None:
    sent, may_go_on = list[str](), asyncio.Event()

    async def send(request: Request) -> Ended:
        sent.append(request.request_id)
        return Ended(0.0, request.request_id, first if request.request_id == "a" else Outcome.OK, ending=Ending.CUT)

    async def held() -> None:
        await may_go_on.wait()

    clock = HandClock()
    phase = Phase("load", (Request("a", (1,)), Request("b", (2,))), concurrency=1)
    run = PhaseRun("s", phase, send, lambda _entry: None, clock, SILENT, Conversations(phase.requests))
    run.after_failure = held
    task = asyncio.create_task(load_here(run))
    await clock.advance(1)
    assert sent == (["a"] if waits else ["a", "b"])
    may_go_on.set()
    await clock.advance(2)
    await task
    assert sent == ["a", "b"]
