"""Verification's follow-ups: what is asked, of whom, and how much of it."""

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.history import Choice, Ended, Entry, History, Operation, Outcome, Sent
from harness.scenario import Message, Purpose, Request, Route, Sampling, Scenario
from harness.verify.asking.owners import LEAST, ROUNDS, SHARE, budget_of, candidates, supposed_prompt
from harness.verify.asking.plan import (
    FURTHER,
    FURTHER_CONTROLS,
    REPEATS,
    SUSPECTS,
    Judges,
    Verification,
    follow_ups,
    followed,
)
from harness.verify.asking.policy import Extent, VerifyPolicy, arm_sizes

ALL = VerifyPolicy(Extent.ALL)


def verification(policy: str = "all", **fields: object) -> Verification:
    plain = Verification(policy=VerifyPolicy.parse(policy), scenario="load", concurrency=8, salt="s")
    return replace(plain, **fields)


def answered(count: int, *, prompt: int = 30, output: int = 5) -> History:
    entries: list[Entry] = []
    for number in range(count):
        ids = (number + 10, *range(100, 100 + prompt - 1))
        entries.append(
            Sent(float(number), Request(f"r{number}", ids, Sampling(max_tokens=output)), "load", "load", 0.0)
        )
        choice = Choice(tuple(range(number, number + output)), finish_reason="length")
        entries.append(Ended(number + 0.5, f"r{number}", Outcome.OK, status=200, choices=(choice,)))
    return History(tuple(entries))


def requests(scenario: Scenario | None) -> tuple[Request, ...]:
    assert scenario is not None
    (phase,) = scenario.phases
    assert (scenario.name, phase.concurrency, phase.counted) == ("load", 8, False)
    return phase.requests


def asked(history: History, scenario: Scenario | None) -> History:
    """The history with everything answered by one token."""
    more: list[Entry] = []
    for request in requests(scenario):
        more.append(Sent(50.0, request, "load", "later", 50.0))
        more.append(Ended(51.0, request.request_id, Outcome.OK, status=200, choices=(Choice((1, 2)),)))
    return History((*history.entries, *more))


def test_the_control_arm_asks_decode_alone_the_loads_prompts_under_salts_of_their_own() -> None:
    history = answered(200)
    arm = requests(verification().control_arm(history))
    prompts = {o.request.prompt for o in history.operations()}
    assert len(arm) == 80  # 640 tokens of output, 8 each
    assert {request.route for request in arm} == {Route.DECODE}
    assert {request.prompt for request in arm} <= prompts
    assert len({request.cache_salt for request in arm}) == len({request.request_id for request in arm}) == len(arm)
    assert {(request.sampling.logprobs, request.sampling.max_tokens) for request in arm} == {(2, 8)}


def test_a_short_load_is_repeated_until_the_arm_is_large_enough() -> None:
    arm = requests(verification().control_arm(answered(3)))
    assert len(arm) == 80
    assert len({request.request_id for request in arm}) == 80
    assert {request.about for request in arm} == {"r0", "r1", "r2"}


def test_everything_is_forced_on_prefill_once_as_prompt_and_output() -> None:
    history = answered(40)
    with_control = asked(history, verification().control_arm(history))
    forcings = requests(verification().forced(with_control))
    assert len(forcings) == 40 + 80
    first = next(request for request in forcings if request.about == "r7")
    assert first.prompt == (17, *range(100, 129), 7, 8, 9, 10, 11)
    assert (first.sampling.prompt_logprobs, first.sampling.max_tokens, first.stream) == (2, 1, False)
    assert {request.route for request in forcings} == {Route.PREFILL}
    assert len({request.cache_salt for request in forcings}) == len(forcings)
    assert verification().forced(asked(with_control, verification().forced(with_control))) is None


def test_both_arms_are_mixed() -> None:
    history = answered(80)
    kinds = [
        "control" in (r.about or "")
        for r in requests(verification().forced(asked(history, verification().control_arm(history))))
    ]
    assert {kinds[start : start + 16].count(True) for start in range(0, 160, 16)} == {8}


def test_a_conversation_is_forced_as_the_ids_that_the_server_told() -> None:
    sent = Request("chat", (Message("user", "hi"),), Sampling(max_tokens=2))
    ended = Ended(1.0, "chat", Outcome.OK, status=200, choices=(Choice((5, 6)),), prompt_token_ids=(1, 2, 3))
    (forcing,) = requests(verification().forced(History((Sent(0.0, sent, "load", "load", 0.0), ended))))
    assert forcing.prompt == (1, 2, 3, 5, 6)


def test_a_full_context_is_forced_as_far_as_it_goes() -> None:
    forcings = requests(verification(max_model_len=35).forced(answered(1)))
    assert [len(request.prompt) for request in forcings] == [34]


def test_what_did_not_complete_is_not_verified() -> None:
    entries = [replace(e, outcome=Outcome.INFO) if isinstance(e, Ended) else e for e in answered(3).entries]
    for step in follow_ups(verification(), Judges(*[lambda _history: ()] * 3)):
        assert step(History(tuple(entries))) is None


def asked_again(history: History, scenario: Scenario) -> History:
    """The history with every request of the scenario answered."""
    more = [
        entry
        for phase in scenario.phases
        for request in phase.requests
        for entry in (
            Sent(50.0, request, "load", phase.name, 50.0),
            Ended(51.0, request.request_id, Outcome.OK, status=200, choices=(Choice((1, 2)),)),
        )
    ]
    return History((*history.entries, *more))


def test_suspects_are_measured_again() -> None:
    history = answered(100)
    wrong = [f"r{number}" for number in range(80, 100)]
    scenario = verification().confirmation(history, wrong)
    assert scenario is not None
    own, further = scenario.phases
    assert {request.about for request in own.requests} == set(wrong[:SUSPECTS])
    assert (own.name, len(own.requests)) == ("confirmation", SUSPECTS * REPEATS)
    assert (further.name, len(further.requests)) == (FURTHER, FURTHER_CONTROLS)
    assert len({request.about for request in further.requests}) == FURTHER_CONTROLS
    assert {request.route for phase in scenario.phases for request in phase.requests} == {Route.DECODE}
    second = verification().confirmation(asked_again(history, scenario), wrong)
    assert second is not None
    assert {request.about for request in second.phases[0].requests} == set(wrong[SUSPECTS : 2 * SUSPECTS])
    names = [request.request_id for one in (scenario, second) for phase in one.phases for request in phase.requests]
    assert len(set(names)) == len(names)
    assert verification().confirmation(history, []) is None


def test_a_wrong_output_is_first_supposed_to_be_anothers_by_a_request_that_hits_the_others_blocks() -> None:
    history = answered(100)
    tried = requests(verification(block_size=8).owners(history, ["r90"]))
    assert len(tried) == ROUNDS[0]
    first = tried[0]
    # The likeliest owner was sent last before it; its prompt but the last token, then the suspect's own last token.
    assert first.prompt == (99, *range(100, 129))
    assert (first.purpose, first.about, first.owner) == (Purpose.OWNER_TEST, "r90", "r89")
    assert (first.sampling.max_tokens, first.sampling.logprobs, first.route) == (1, 2, Route.PREFILL)
    assert {request.cache_salt for request in tried} == {None}  # the load's own: they hit what it left
    assert {request.purpose for request in tried} == {Purpose.OWNER_TEST}
    assert verification().owners(history, []) is None
    assert verification().owners(history, ["r90"], ["r90"]) is None


def supposed(history: History, scenario: Scenario | None, fits: Collection[str]) -> History:
    """Suppositions answered: the suspect's first token where the supposed owner is named in ``fits``."""
    more: list[Entry] = []
    for request in requests(scenario):
        token = 90 if request.owner in fits else 3
        more.append(Sent(200.0, request, "load", "owners", 200.0))
        more.append(Ended(201.0, request.request_id, Outcome.OK, status=200, choices=(Choice((token,)),)))
    return History((*history.entries, *more))


def test_who_may_be_the_owner_is_tried_by_forcing_beside_some_who_are_not() -> None:
    history = answered(100)
    history = supposed(history, verification(block_size=8).owners(history, ["r90"]), {"r80"})
    forcings = requests(verification(block_size=8).owners(history, ["r90"]))
    assert {request.about for request in forcings} == {"r90"}
    assert forcings[0].prompt == (90, *range(100, 129), 90, 91, 92, 93, 94)
    assert next(request.owner for request in forcings if request.owner) == "r80"
    assert 5 * (len(forcings) - 1) >= 150  # tokens that show how often an answer fits by chance
    assert len({request.request_id for request in forcings}) == len(forcings)


def test_the_search_goes_on_in_larger_rounds_until_all_were_tried() -> None:
    history, asked_so_far, sizes = answered(500), set[str](), []
    while scenario := verification(block_size=8).owners(history, ["r90"]):
        names = {request.request_id for request in requests(scenario)}
        assert not names & asked_so_far
        asked_so_far |= names
        sizes.append(len(names))
        history = supposed(history, scenario, ())
    assert sizes == [32, 58]  # whoever was sent after its end cannot own it
    assert len(asked_so_far) == 90


def test_the_search_keeps_to_its_budget() -> None:
    history, wrong, cost = answered(400), [f"r{number}" for number in range(300, 400)], 0
    served = history.operations()
    load = 400 * 35
    assert budget_of(served) == max(LEAST, SHARE * load) == LEAST
    while scenario := verification(block_size=8).owners(history, wrong):
        cost += sum((len(request.prompt) - 1) % 8 + 2 for request in requests(scenario))
        history = supposed(history, scenario, ())
    assert 0.99 * LEAST < cost <= LEAST


def test_the_likeliest_owner_comes_first() -> None:
    def operation(name: str, sent: float, ended: float, answer: tuple[int, ...], length: int = 20) -> Operation:
        request = Request(name, (len(name), *range(length - 1)))
        choices = (Choice(answer),)
        return Operation(Sent(sent, request, "load", "load", sent), Ended(ended, name, Outcome.OK, choices=choices))

    suspect = operation("suspect", 10.0, 12.0, (7, 8, 9))
    others = [
        operation("after", 13.0, 14.0, (7, 8, 9)),
        operation("long ago", 1.0, 2.0, (1, 1, 1)),
        operation("lately", 8.0, 9.0, (1, 1, 1)),
        operation("short, together", 10.0, 11.0, (1, 1, 1), 5),
        operation("together", 11.0, 13.0, (1, 1, 1)),
        operation("long ago, alike", 1.0, 2.0, (7, 8, 5)),
    ]
    order = [one.request.request_id for one in candidates(suspect, [*others, suspect])]
    assert order == ["long ago, alike", "together", "lately", "long ago", "short, together"]


def test_of_a_shorter_prompt_whole_blocks_are_supposed() -> None:
    def of(prompt: tuple[int, ...]) -> Operation:
        return Operation(Sent(0.0, Request("r", prompt), "load", "load", 0.0), Ended(1.0, "r", Outcome.OK))

    suspect = of(tuple(range(100, 120)))
    assert supposed_prompt(of(tuple(range(19))), suspect, 8) == (*range(19), 119)
    assert supposed_prompt(of(tuple(range(40))), suspect, 8) == (*range(19), 119)
    assert supposed_prompt(of(tuple(range(18))), suspect, 8) == (*range(16), *range(116, 120))
    assert supposed_prompt(of(tuple(range(18))), suspect, None) is None
    assert supposed_prompt(of(tuple(range(7))), suspect, 8) is None
    assert supposed_prompt(of((*range(100, 119), 5)), suspect, 8) is None  # the same KV: nobody could tell


def test_the_same_seed_picks_the_same_outputs() -> None:
    history = answered(200)
    one, two, other = (verification("sample:20", seed=seed).forced(history) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("text", ["", "some", "sample", "sample:x", "budget:-1", "all:3", "budget"])
def test_a_policy_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--verify"):
        VerifyPolicy.parse(text)


def test_policies() -> None:
    assert VerifyPolicy.parse("sample:20") == VerifyPolicy(Extent.SAMPLE, 20)
    load = [200] * 1000
    assert arm_sizes(ALL, load, 20_000, 32).verified == 1000
    assert arm_sizes(VerifyPolicy.parse("sample:20"), load, 20_000, 32).verified == 20
    assert arm_sizes(VerifyPolicy.parse("budget:10"), [200] * 100, 2000, 32).verified == 100
    assert arm_sizes(ALL, [], 0, 32).controls == 0
    assert arm_sizes(ALL, load, 20_000, 64).controls == 64


@given(
    count=st.integers(3000, 10**6),
    tokens=st.integers(50, 5000),
    concurrency=st.integers(1, 64),
    percent=st.floats(10, 80),
)
def test_a_long_run_keeps_to_its_budget(count: int, tokens: int, concurrency: int, percent: float) -> None:
    sizes = arm_sizes(VerifyPolicy(Extent.BUDGET, percent), range(count), 20 * count, concurrency)
    spent = tokens * (sizes.verified + 2 * sizes.controls)
    assert spent <= percent / 100 * count * tokens
    assert spent >= 0.9 * percent / 100 * count * tokens or sizes.verified == count


def test_each_step_sees_what_the_one_before_has_left() -> None:
    load = Scenario("load", "", ())
    past, seen = answered(2), []

    def step(history: History) -> Scenario | None:
        seen.append(len(history.entries))
        return load if len(seen) == 2 else None

    scenarios = followed(load, lambda: past, [step, step, step])
    assert next(scenarios) is load
    assert seen == []  # nothing is asked of a history before the load has been run
    past = answered(5)
    assert list(scenarios) == [load]
    assert seen == [10, 10, 10]
