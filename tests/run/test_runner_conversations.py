"""Requests that continue an earlier answer, and background requests."""

from collections import Counter

import pytest
from jumping_clock import JumpingClock
from observed_journal import Journal

from harness.errors import HarnessError
from harness.history import Choice, Ended, Outcome
from harness.run.runner import run_scenario
from harness.scenario import Endpoint, Message, Phase, Purpose, Request, Route, Scenario


class Answering:
    """Answers each request with token 7 and the word " yes"; keeps the requests and counts requests in flight."""

    def __init__(self, clock: JumpingClock, failing: frozenset[str] = frozenset()) -> None:
        self.clock, self.failing = clock, failing
        self.asked: dict[str, Request] = {}
        self.in_flight: Counter[bool] = Counter()
        self.least_beside: int | None = None

    async def __call__(self, request: Request) -> Ended:
        background = request.request_id.startswith("beside")
        self.asked[request.request_id] = request
        self.in_flight[background] += 1
        for _ in range(2 if background else 5):
            await self.clock.sleep(1)
        if not background:
            seen = self.in_flight[True]
            self.least_beside = seen if self.least_beside is None else min(seen, self.least_beside)
        self.in_flight[background] -= 1
        if request.request_id in self.failing:
            return Ended(self.clock.now(), request.request_id, Outcome.INFO, "500: engine died", 500)
        return Ended(
            self.clock.now(), request.request_id, Outcome.OK, "", 200, choices=(Choice((7, 8), " yes", "length"),)
        )


async def run(scenario: Scenario, failing: frozenset[str] = frozenset()) -> tuple[Answering, Journal]:
    clock, journal = JumpingClock(), Journal()
    send = Answering(clock, failing)
    await run_scenario(scenario, send=send, counters=journal, record=journal.record, clock=clock)
    return send, journal


def turns(*requests: Request) -> Scenario:
    return Scenario("talk", "", tuple(Phase(request.request_id, (request,)) for request in requests))


async def test_token_ids_continue_prompt_and_answer() -> None:
    send, journal = await run(
        turns(Request("a", (1, 2)), Request("b", (3,), continues="a"), Request("c", (4, 5), continues="b"))
    )
    assert send.asked["b"].prompt == (1, 2, 7, 8, 3)
    assert send.asked["c"].prompt == (1, 2, 7, 8, 3, 7, 8, 4, 5)
    assert [sent.request.prompt for sent in journal.sents()][2] == (1, 2, 7, 8, 3, 7, 8, 4, 5)
    assert {sent.request.continues for sent in journal.sents()} == {None}


async def test_text_and_messages_continue_prompt_and_answer() -> None:
    user, more = Message("user", "is it?"), Message("user", "and now?")
    chat = Endpoint.CHAT
    send, _ = await run(
        turns(
            Request("a", "is it?"),
            Request("b", " and now?", continues="a"),
            Request("c", (user,), endpoint=chat),
            Request("d", (more,), endpoint=chat, continues="c"),
        )
    )
    assert send.asked["b"].prompt == "is it? yes and now?"
    assert send.asked["d"].prompt == (user, Message("assistant", " yes"), more)


async def test_a_reference_continues_the_served_answer_and_not_the_previous_reference() -> None:
    reference = Request("b-reference", (3,), route=Route.PREFILL, purpose=Purpose.REFERENCE, about="b", continues="a")
    send, _ = await run(turns(Request("a", (1,)), Request("b", (3,), continues="a"), reference))
    assert send.asked["b-reference"].prompt == send.asked["b"].prompt


@pytest.mark.parametrize(("before", "failing"), [("a", {"a"}), ("never", set())])
async def test_a_turn_without_its_previous_turn_is_not_sent(before: str, failing: set[str]) -> None:
    send, journal = await run(turns(Request("a", (1,)), Request("b", (3,), continues=before)), frozenset(failing))
    assert "b" not in send.asked
    end = journal.ends()["b"]
    assert (end.outcome, end.status) == (Outcome.FAIL, None)
    assert f"not sent: it continues {before}" in end.cause


async def test_prompts_of_different_kinds_are_an_error() -> None:
    with pytest.raises(HarnessError, match="of different kinds"):
        await run(turns(Request("a", (1,)), Request("b", "text", continues="a")))


def beside(number: int) -> tuple[Request, ...]:
    return tuple(Request(f"beside-{n}", (n,)) for n in range(number))


async def test_background_requests_are_in_flight_until_the_phases_own_have_ended() -> None:
    own = tuple(Request(f"own-{n}", (n,)) for n in range(6))
    phase = Phase("load", own, concurrency=2, background=beside(100), background_concurrency=3)
    send, journal = await run(Scenario("s", "", (phase,)))
    assert send.least_beside is not None
    assert send.least_beside >= 2, "one may have just ended"
    asked = [name for name in send.asked if name.startswith("beside")]
    assert 3 <= len(asked) < 100
    assert set(journal.ends()) == set(send.asked)
    assert [sent.request.request_id for sent in journal.sents()][:3] == ["beside-0", "beside-1", "beside-2"]


async def test_an_unsent_request_needs_no_reference() -> None:
    own = Request("own", (1,))
    background = beside(50)
    references = tuple(
        Request(f"{one.request_id}-r", one.prompt, purpose=Purpose.REFERENCE, about=one.request_id)
        for one in background
    )
    phases = (Phase("load", (own,), background=background, background_concurrency=2), Phase("reference", references))
    send, _ = await run(Scenario("s", "", phases))
    sent = {name for name in send.asked if name.startswith("beside") and not name.endswith("-r")}
    assert {name for name in send.asked if name.endswith("-r")} == {f"{name}-r" for name in sent}
    assert len(sent) < 50


async def test_background_ids_must_be_unique_too() -> None:
    phase = Phase("load", (Request("beside-0", (1,)),), background=beside(1), background_concurrency=1)
    with pytest.raises(HarnessError, match="beside-0"):
        await run(Scenario("s", "", (phase,)))
