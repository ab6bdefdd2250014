"""The steps of verification: which requests are sent, to which server, and how many."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Operation, Outcome, Sent
from harness.scenario import Condition, Message, Purpose, Request, Route, Sampling, Scenario
from harness.verify.asking import VERIFICATION, VerifyOptions, verified
from harness.verify.asking.candidates import candidates, owner_prompt
from harness.verify.asking.controls import ENOUGH_CONTROLS, FURTHER_CONTROLS, REPEATS, SUSPECTS, confirmation, controls
from harness.verify.asking.forcing import first_forced, forced
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import most_in_flight, through_proxy
from harness.verify.asking.owner_budget import LEAST, SHARE, budget_of
from harness.verify.asking.owners import ROUNDS, next_round
from harness.verify.asking.policy import Extent, VerifyPolicy, sizes
from harness.verify.asking.retries import retries

ALL = VerifyPolicy(Extent.ALL)


def verification(policy: str = "all", *, block_size: int = 8, room: int | None = None, **fields: Any) -> Verification:
    servers = tuple(
        Server(f"{role}-0", role, f"http://{role}", block_size=block_size, max_model_len=room) for role in Role
    )
    how = VerifyOptions(policy=VerifyPolicy.parse(policy), concurrency=8, salt="s")
    return Verification(Deployment(servers, "http://proxy", "m", launched=True), replace(how, **fields))


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


def requests(phases: Phases) -> tuple[Request, ...]:
    (phase,) = phases
    assert (phase.concurrency, phase.counted) == (8, False)
    return phase.requests


def asked(history: History, phases: Phases) -> History:
    """The history with every request of the phases answered by two tokens."""
    more: list[Entry] = []
    for phase in phases:
        for request in phase.requests:
            more.append(Sent(50.0, request, VERIFICATION, phase.name, 50.0))
            more.append(Ended(51.0, request.request_id, Outcome.OK, status=200, choices=(Choice((1, 2)),)))
    return History((*history.entries, *more))


def test_control_requests_send_prompts_of_the_load_to_decode_with_salts_of_their_own() -> None:
    history = answered(512)
    asked_now = requests(controls(verification(), history))
    prompts = {o.request.prompt for o in history.operations()}
    # 640 tokens of output, 8 each.
    assert len(asked_now) == 80
    assert {request.route for request in asked_now} == {Route.DECODE}
    assert {request.prompt for request in asked_now} <= prompts
    assert (
        len({request.cache_salt for request in asked_now}) == len({request.request_id for request in asked_now}) == 80
    )
    assert {(request.sampling.logprobs, request.sampling.max_tokens) for request in asked_now} == {(2, 8)}


def test_the_prompts_of_a_short_load_are_repeated_until_there_are_enough_control_requests() -> None:
    asked_now = requests(controls(verification(), answered(3)))
    # As many tokens as for a large load: 640 of output, 8 each.
    assert len(asked_now) == 80
    assert len({request.request_id for request in asked_now}) == 80
    assert {request.about for request in asked_now} == {"r0", "r1", "r2"}


def test_control_requests_are_as_long_as_the_loads_answers_and_no_longer_than_twice_its_prompts() -> None:
    long = answered(64, prompt=1500, output=40)
    assert {len(one.prompt) for one in requests(controls(verification(), long))} == {1500}
    assert {one.sampling.max_tokens for one in requests(controls(verification(), long))} == {40}
    one_longer = renamed(answered(1, prompt=5000, output=40), "long")
    mixed = History((*answered(63, prompt=100, output=4).entries, *one_longer.entries))
    asked_now = requests(controls(verification(), mixed))
    assert {len(one.prompt) for one in asked_now if one.about == "long0"} <= {1024}
    assert {one.sampling.max_tokens for one in asked_now} == {8}


def renamed(history: History, prefix: str) -> History:
    entries: list[Entry] = []
    for o in history.operations():
        name = o.request.request_id.replace("r", prefix)
        entries += [replace(o.sent, request=replace(o.request, request_id=name)), replace(o.ended, request_id=name)]
    return History(tuple(entries))


def test_everything_is_forced_on_prefill_once_as_prompt_and_output() -> None:
    history = answered(40)
    with_control = asked(history, controls(verification(), history))
    forcings = requests(forced(verification(), with_control))
    assert len(forcings) == 40 + 80
    first = next(request for request in forcings if request.about == "r7")
    assert first.prompt == (17, *range(100, 129), 7, 8, 9, 10, 11)
    assert (first.sampling.prompt_logprobs, first.sampling.max_tokens, first.stream) == (2, 1, False)
    assert {request.route for request in forcings} == {Route.PREFILL}
    assert len({request.cache_salt for request in forcings}) == len(forcings)
    assert not forced(verification(), asked(with_control, forced(verification(), with_control)))


def test_a_few_outputs_are_forced_before_the_others() -> None:
    history = answered(40)
    first = requests(first_forced(verification(), history))
    rest = requests(forced(verification(), asked(history, first_forced(verification(), history))))
    assert (len(first), len(rest)) == (16, 24)
    assert len({one.about for one in (*first, *rest)}) == 40


def test_outputs_and_control_outputs_are_forced_mixed() -> None:
    history = answered(320)
    phases = forced(verification(), asked(history, controls(verification(), history)))
    kinds = ["control" in (r.about or "") for r in requests(phases)]
    assert len(kinds) == 320 + 80
    assert {kinds[start : start + 20].count(True) for start in range(0, 400, 20)} == {4}


def test_a_conversation_is_forced_as_the_ids_that_the_server_reported() -> None:
    sent = Request("chat", (Message("user", "hi"),), Sampling(max_tokens=2))
    ended = Ended(1.0, "chat", Outcome.OK, status=200, choices=(Choice((5, 6)),), prompt_token_ids=(1, 2, 3))
    entries = (Sent(0.0, sent, "load", "load", 0.0), ended)
    reference, forcing = requests(forced(verification(), History(entries)))
    assert forcing.prompt == (1, 2, 3, 5, 6)
    # Only a reference shows that the conversation reached the server as it was sent.
    assert (reference.purpose, reference.prompt, reference.route) == (Purpose.REFERENCE, sent.prompt, Route.PREFILL)


def test_a_full_context_is_forced_as_far_as_it_goes() -> None:
    forcings = requests(forced(verification(room=35), answered(1)))
    assert [len(request.prompt) for request in forcings] == [34]


def test_requests_that_did_not_complete_are_not_verified() -> None:
    entries = [replace(e, outcome=Outcome.INFO) if isinstance(e, Ended) else e for e in answered(3).entries]
    assert not list(after_the_load(History(tuple(entries))))


def after_the_load(history: History, **fields: Any) -> Iterator[Scenario]:
    """The scenarios that verify a history; each of their requests is answered by two tokens."""
    past, plan = [history], verification(**fields)
    for scenario in verified([], plan.deployment, lambda: past[-1], plan.how):
        past.append(asked(past[-1], scenario.phases))
        if scenario.phases[0].requests[0].purpose is not Purpose.SALT_TEST:
            yield scenario


def test_suspects_are_measured_again() -> None:
    history = answered(100)
    wrong = [f"r{number}" for number in range(80, 100)]
    phases = confirmation(verification(), history, wrong)
    own, further = of_suspects(requests(phases))
    assert {request.about for request in own} == set(wrong[:SUSPECTS])
    assert len(own) == SUSPECTS * REPEATS
    assert len(further) == ENOUGH_CONTROLS - len(own)
    assert len({request.about for request in further[:FURTHER_CONTROLS]}) == FURTHER_CONTROLS
    assert {request.route for request in (*own, *further)} == {Route.DECODE}
    second = confirmation(verification(), asked(history, phases), wrong)
    assert {request.about for request in of_suspects(requests(second))[0]} == set(wrong[SUSPECTS : 2 * SUSPECTS])
    names = [request.request_id for request in (*requests(phases), *requests(second))]
    assert len(set(names)) == len(names)
    assert not confirmation(verification(), history, [])


def test_where_not_every_output_is_verified_suspects_cost_no_more_than_a_few_controls() -> None:
    asked_of_few = requests(confirmation(verification("sample:50"), answered(100), ["r80"]))
    own, further = of_suspects(asked_of_few)
    assert (len(own), len(further)) == (REPEATS, FURTHER_CONTROLS)


def of_suspects(asked_now: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """Control requests for prompts whose outputs look wrong, and for other prompts."""
    return (
        [request for request in asked_now if request.condition is Condition.SUSPECT],
        [request for request in asked_now if request.condition is None],
    )


def test_a_suspect_is_measured_again_with_its_whole_prompt_and_at_its_own_length() -> None:
    long = renamed(answered(1, prompt=5000, output=40), "long")
    history = History((*answered(63, prompt=100, output=4).entries, *long.entries))
    own, further = of_suspects(requests(confirmation(verification(), history, ["long0"])))
    assert {(len(one.prompt), one.sampling.max_tokens) for one in own} == {(5000, 40)}
    assert {one.sampling.max_tokens for one in further} == {8}


def owners(history: History, wrong: Collection[str]) -> tuple[Request, ...]:
    served = through_proxy(history)
    return tuple(next_round(verification(), history, served, [o for o in served if o.request.request_id in wrong]))


def without_blocks(history: History, wrong: Collection[str]) -> History:
    """The history after the questions about the wrong outputs' blocks, which the decode server refused."""
    more: list[Entry] = []
    for request in owners(history, wrong):
        more.append(Sent(190.0, request, "load", "owners", 190.0))
        more.append(Ended(191.0, request.request_id, Outcome.FAIL, "400"))
    return History((*history.entries, *more))


def test_owner_tests_come_first_and_hit_the_blocks_of_the_candidates() -> None:
    history = without_blocks(answered(100), ["r90"])
    tests = owners(history, ["r90"])
    assert len(tests) == ROUNDS[0]
    first = tests[0]
    # The likeliest owner was sent just before the suspect: its prompt, with the last token replaced by the suspect's.
    assert first.prompt == (99, *range(100, 129))
    assert (first.purpose, first.about, first.owner) == (Purpose.OWNER_TEST, "r90", "r89")
    assert (first.sampling.max_tokens, first.sampling.logprobs, first.route) == (1, 5, Route.PREFILL)
    # Owner tests have the load's own salt, so that they hit its blocks.
    assert {request.cache_salt for request in tests} == {None}
    assert {request.purpose for request in tests} == {Purpose.OWNER_TEST}
    assert not owners(history, [])


def with_answers(history: History, tests: Sequence[Request], fits: Collection[str]) -> History:
    """The history with answers to owner tests: for candidates in ``fits``, the wrong output's first token."""
    more: list[Entry] = []
    for request in tests:
        token = 90 if request.owner in fits else 3
        more.append(Sent(200.0, request, "load", "owners", 200.0))
        more.append(Ended(201.0, request.request_id, Outcome.OK, status=200, choices=(Choice((token,)),)))
    return History((*history.entries, *more))


def test_candidates_that_passed_the_owner_test_are_forced_and_so_are_some_that_failed() -> None:
    history = without_blocks(answered(100), ["r90"])
    history = with_answers(history, owners(history, ["r90"]), {"r80"})
    forcings = owners(history, ["r90"])
    assert {request.about for request in forcings} == {"r90"}
    assert forcings[0].prompt == (90, *range(100, 129), 90, 91, 92, 93, 94)
    assert next(request.owner for request in forcings if request.owner) == "r80"
    # Enough tokens to show how often an answer fits by chance.
    assert 5 * (len(forcings) - 1) >= 150
    assert len({request.request_id for request in forcings}) == len(forcings)


def test_the_search_goes_on_in_larger_rounds_until_all_candidates_were_tested() -> None:
    history, asked_so_far, rounds = without_blocks(answered(500), ["r90"]), set[str](), []
    while tests := owners(history, ["r90"]):
        names = {request.request_id for request in tests}
        assert not names & asked_so_far
        asked_so_far |= names
        rounds.append(len(names))
        history = with_answers(history, tests, ())
    # Requests that were sent after the end of the wrong output cannot be its owner.
    assert rounds == [32, 58]
    assert len(asked_so_far) == 90


def test_the_search_keeps_to_its_budget() -> None:
    wrong = [f"r{number}" for number in range(300, 400)]
    # A question about blocks computes one token of the prompt and generates 16.
    history, cost = without_blocks(answered(400), wrong), 17 * len(wrong)
    served = through_proxy(history)
    load = 400 * 35
    assert budget_of(served) == max(LEAST, SHARE * load) == LEAST
    while tests := owners(history, wrong):
        cost += sum((len(request.prompt) - 1) % 8 + 2 for request in tests)
        history = with_answers(history, tests, ())
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
        operation("short, alike", 1.0, 2.0, (7, 8, 5), 5),
        operation("together", 11.0, 13.0, (1, 1, 1)),
        operation("long ago, alike", 1.0, 2.0, (7, 8, 5)),
    ]
    order = [one.request.request_id for one in candidates(suspect, [*others, suspect])]
    assert order == ["long ago, alike", "together", "lately", "long ago", "short, alike", "short, together"]


def test_a_shorter_candidate_prompt_provides_whole_blocks_only() -> None:
    def of(prompt: tuple[int, ...]) -> Operation:
        return Operation(Sent(0.0, Request("r", prompt), "load", "load", 0.0), Ended(1.0, "r", Outcome.OK))

    suspect = of(tuple(range(100, 120)))
    assert owner_prompt(of(tuple(range(19))), suspect, 8) == (*range(19), 119)
    assert owner_prompt(of(tuple(range(40))), suspect, 8) == (*range(19), 119)
    assert owner_prompt(of(tuple(range(18))), suspect, 8) == (*range(16), *range(116, 120))
    assert owner_prompt(of(tuple(range(7))), suspect, 8) is None
    # The KV is the same, so that no test could show the owner.
    assert owner_prompt(of((*range(100, 119), 5)), suspect, 8) is None


def test_the_same_seed_picks_the_same_outputs() -> None:
    history = answered(200)
    one, two, other = (forced(verification("sample:20", seed=seed), history) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("text", ["", "some", "sample", "sample:x", "budget:-1", "all:3", "budget"])
def test_an_unreadable_policy_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--verify"):
        VerifyPolicy.parse(text)


def test_policies() -> None:
    assert VerifyPolicy.parse("sample:20") == VerifyPolicy(Extent.SAMPLE, 20)
    load = [200] * 1000
    assert sizes(ALL, load, 20_000, 32).drawn == 1000
    assert sizes(VerifyPolicy.parse("sample:20"), load, 20_000, 32).drawn == 20
    assert sizes(VerifyPolicy.parse("budget:10"), [200] * 100, 2000, 32).drawn == 100
    assert sizes(ALL, [], 0, 32).controls == 0
    assert sizes(ALL, load, 20_000, 64).controls == 64


@given(
    count=st.integers(10_000, 10**6),
    tokens=st.integers(50, 5000),
    concurrency=st.integers(1, 64),
    percent=st.floats(10, 80),
)
def test_a_long_run_keeps_to_its_budget(count: int, tokens: int, concurrency: int, percent: float) -> None:
    found = sizes(VerifyPolicy(Extent.BUDGET, percent), range(count), 20 * count, concurrency)
    spent = tokens * (found.drawn + 2 * found.controls)
    # To within the rounding of floats.
    assert spent <= 0.7 * percent / 100 * count * tokens * (1 + 1e-9)
    # The rest is for outputs that look wrong.
    assert spent >= 0.9 * 0.7 * percent / 100 * count * tokens or found.drawn == count
    # A reference costs as much as a forcing.
    both = sizes(VerifyPolicy(Extent.BUDGET, percent), range(count), 20 * count, concurrency, referenced=count)
    assert both.drawn == found.drawn // 2 or found.drawn == count


def test_half_of_what_is_forced_are_strange_outputs_at_most() -> None:
    few, many = (sizes(VerifyPolicy.parse("budget:10"), [200] * 4000, 80_000, 32, strange=n) for n in (10, 4000))
    assert few.suspects == 10
    assert many.suspects == many.drawn == (few.drawn + few.suspects) // 2
    # Where first tokens are equal to the last bit, a load that the budget suffices for is still verified whole.
    short, long = (sizes(VerifyPolicy.parse("budget:10"), [200] * n, 20 * n, 32, exact=True) for n in (128, 4000))
    assert (short.drawn, long.drawn) == (128, 48)
    everything = sizes(ALL, [200] * 4000, 80_000, 32, strange=10)
    assert (everything.drawn, everything.suspects) == (4000, 0)


def test_the_history_is_read_only_after_the_load_has_been_run() -> None:
    load, past, seen = Scenario("load", "", ()), answered(0), []
    plan = verification(seed=3)

    def history() -> History:
        seen.append(len(past.entries))
        return past

    scenarios = verified([load], plan.deployment, history, plan.how)
    salt_scenario = next(scenarios)
    assert {request.purpose for phase in salt_scenario.phases for request in phase.requests} == {Purpose.SALT_TEST}
    assert next(scenarios) is load
    assert seen == [0, 0]
    past = answered(5)
    first = next(scenarios)
    assert (first.name, first.phases[0].name, seen[-1]) == (VERIFICATION, "probe", 10)
    past = asked(past, first.phases)
    next(scenarios)
    assert seen[-1] == len(past.entries) > 10, "each step is made from the history so far"


def test_the_phases_of_a_history_have_different_names() -> None:
    names = [phase.name for scenario in after_the_load(answered(40)) for phase in scenario.phases]
    assert names[:4] == ["probe", "teacher", "control", "teacher-2"]
    assert len(set(names)) == len(names)


def test_a_wrong_output_is_retried_once() -> None:
    history = answered(10)
    phases = retries(verification(), history, ["r3", "r4"])
    assert [(phase.name, phase.concurrency) for phase in phases] == [("retry-together", 8), ("retry-alone", 1)]
    assert {request.about for phase in phases for request in phase.requests} == {"r3", "r4"}
    assert not retries(verification(), asked(history, phases), ["r3", "r4"])


def test_without_a_concurrency_as_many_requests_are_in_flight_as_the_load_had() -> None:
    load = [Sent(0.0 + n, Request(f"r{n}", (n, 1)), "load", "load", 0.0) for n in range(3)]
    ends = [Ended(1.5 + n, f"r{n}", Outcome.OK, status=200, choices=(Choice((1,)),)) for n in range(3)]
    history = History((*load, *ends))
    assert most_in_flight(history) == 2
    (phase,) = forced(verification(concurrency=None), history)
    assert phase.concurrency == 2
