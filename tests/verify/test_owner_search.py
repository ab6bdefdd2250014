"""The search for owners where answers tell the first token's log-probabilities; without: test_outputs_verification."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Named, Outcome, Sent, TokenLogprob
from harness.scenario import Condition, Purpose, Request, Route, Sampling
from harness.verify.asking.options import Verification, VerifyOptions
from harness.verify.asking.outputs import through_proxy
from harness.verify.asking.owner_blocks import doubted_blocks
from harness.verify.asking.owners import ROUNDS, next_round
from harness.verify.asking.policy import VerifyPolicy

BLOCK, VICTIM = 8, "r90"
SERVERS = tuple(Server(f"{role}-0", role, f"http://{role}", block_size=BLOCK) for role in Role)
VERIFICATION = Verification(
    Deployment(SERVERS, "http://proxy", "m", launched=True),
    VerifyOptions(policy=VerifyPolicy.parse("all"), concurrency=8, salt="s"),
)
FIRST = 77
"""Every answer begins with this token, as in a load of questions that are all answered with "The"."""


def vector(number: int) -> Named:
    rng = np.random.default_rng(number)
    return tuple((FIRST + place, -1.0 - place + float(shift)) for place, shift in enumerate(rng.normal(size=5)))


def load(prompts: Sequence[tuple[int, ...]], like: int, *, output: int = 5) -> History:
    """The victim's first token has the log-probabilities that the prompt of request ``like`` has.

    ``output``: tokens of each answer.
    """
    entries: list[Entry] = []
    for number, prompt in enumerate(prompts):
        first = vector(like if f"r{number}" == VICTIM else number)
        entries.append(Sent(float(number), Request(f"r{number}", prompt, Sampling()), "load", "load", float(number)))
        choice = Choice((FIRST, *range(number, number + output - 1)))
        entries.append(
            Ended(
                number + 0.5,
                f"r{number}",
                Outcome.OK,
                choices=(choice,),
                first_logprobs=first,
                prefill_first=vector(number),
            )
        )
    return History(tuple(entries))


def asked(
    history: History, *, left: float = math.inf, most: int | None = None, wrong: Collection[str] = (VICTIM,)
) -> tuple[Request, ...]:
    served = through_proxy(history)
    searched = [o for o in served if o.request.request_id in wrong]
    return tuple(next_round(VERIFICATION, history, served, searched, left=left, most=most))


def without_blocks(history: History, *, wrong: Collection[str] = (VICTIM,)) -> History:
    """After the questions about the victims' blocks, which the decode server refused."""
    for question in asked(history, wrong=wrong):
        sent = Sent(190.0, question, "verification", "owners", 190.0)
        history = History((*history.entries, sent, Ended(191.0, question.request_id, Outcome.FAIL, "400")))
    return history


def answers(
    requests: Sequence[Request], rows: Mapping[str, Sequence[TokenLogprob]] | None = None
) -> Iterator[Sent | Ended]:
    """Answers to owner tests; ``rows``: the tokens of continuations, by owner."""
    for request in requests:
        first, told = vector(int(str(request.owner)[1:])), tuple((rows or {}).get(str(request.owner), ()))
        choice = Choice(tuple(row.token_id for row in told) or (FIRST,), logprobs=told)
        yield Sent(200.0, request, "verification", "owners", 200.0)
        yield Ended(201.0, request.request_id, Outcome.OK, choices=(choice,), first_logprobs=first)


def after_tests(history: History) -> History:
    """After a round of owner tests."""
    return History((*history.entries, *answers(asked(history))))


def continued(history: History, *tokens: int, behind: float = 5.0, kept: bool = True) -> History:
    """After the continuation of the victim's answer by request 70, with these tokens.

    ``behind``: nats between each token and the next best ones, 99 and 98. ``kept``: whether the cache still gives the
    first token that request 70 had during the load.
    """
    rows = [TokenLogprob(token, -1.0, -1.0 - behind, 99, -1.0 - behind, 98) for token in tokens]
    now = [one for one in asked(history) if one.purpose is Purpose.OWNER_TEST]
    told = [*answers(now, {"r70": rows})]
    if not kept:
        checks = {one.request_id for one in now if one.owner == "r70" and one.prompt[-1:] != now[0].prompt[-1:]}
        told = [
            replace(entry, first_logprobs=vector(7))
            if isinstance(entry, Ended) and entry.request_id in checks
            else entry
            for entry in told
        ]
    return History((*history.entries, *told))


def owners_of(requests: Sequence[Request], purpose: Purpose) -> list[str]:
    return [str(request.owner) for request in requests if request.purpose is purpose]


@pytest.fixture
def prompts() -> list[tuple[int, ...]]:
    rng = np.random.default_rng(4)
    return [tuple(int(token) for token in rng.integers(100, 9000, 30)) for _ in range(100)]


def long_prompts(*, shared: int = 0) -> list[tuple[int, ...]]:
    """Prompts of 80 tokens, of which the first ``shared`` are the same."""
    rng = np.random.default_rng(5)
    common = rng.integers(100, 9000, shared).tolist()
    return [(*common, *rng.integers(100, 9000, 80 - shared).tolist()) for _ in range(100)]


def test_the_nearest_candidate_is_asked_to_go_on_and_not_all_that_begin_alike(prompts: list[tuple[int, ...]]) -> None:
    first, *others = asked(after_tests(without_blocks(load(prompts, like=70))))
    assert (first.purpose, first.owner, first.sampling.max_tokens) == (Purpose.OWNER_TEST, "r70", 5)
    assert first.prompt == (*prompts[70][:29], prompts[90][29])
    assert (first.cache_salt, first.route) == (None, Route.PREFILL)
    assert all(one.sampling.max_tokens == 1 for one in others)
    # Every candidate's answer begins like the victim's. Only decoys are forced, as many as the tokens ask for.
    assert "r70" not in owners_of(others, Purpose.FORCING)
    assert len(owners_of(others, Purpose.FORCING)) == ROUNDS[0] - 1


def test_a_candidate_that_goes_on_as_the_victim_does_need_not_be_forced(prompts: list[tuple[int, ...]]) -> None:
    past = continued(after_tests(without_blocks(load(prompts, like=70))), FIRST, 90, 91, 92, 93)
    assert "r70" not in owners_of(asked(past), Purpose.FORCING)
    assert not any(one.sampling.max_tokens == 5 for one in asked(past))


def test_a_candidate_is_forced_if_the_cache_no_longer_has_its_prompt(prompts: list[tuple[int, ...]]) -> None:
    """What goes on as the victim does may be the KV of a third request."""
    history = after_tests(without_blocks(load(prompts, like=70)))
    (check,) = [one for one in asked(history) if one.owner == "r70" and one.prompt == prompts[70]]
    assert (check.purpose, check.sampling.max_tokens) == (Purpose.OWNER_TEST, 1)
    now = asked(continued(history, FIRST, 90, 91, 92, 93, kept=False))
    assert owners_of(now, Purpose.FORCING)[0] == "r70"


def test_a_candidate_is_forced_if_a_near_tie_went_the_other_way(prompts: list[tuple[int, ...]]) -> None:
    history = after_tests(without_blocks(load(prompts, like=70)))
    near = asked(continued(history, FIRST, 90, 95, 96, 97, behind=1e-5))
    assert owners_of(near, Purpose.FORCING)[0] == "r70"
    assert near[0].prompt == (*prompts[70][:29], prompts[90][29], FIRST, 90, 91, 92, 93)
    far = asked(continued(history, FIRST, 90, 95, 96, 97))
    assert "r70" not in owners_of(far, Purpose.FORCING)


def test_a_long_answer_is_forced_at_once() -> None:
    """Noise would make it part from its continuation somewhere."""
    now = asked(after_tests(without_blocks(load(long_prompts(), like=70, output=40))))
    assert (now[0].purpose, now[0].owner) == (Purpose.FORCING, "r70")


def test_decoys_are_the_ends_of_prompts_behind_their_first_tokens() -> None:
    prompts = long_prompts()
    decoys = [
        one for one in asked(after_tests(without_blocks(load(prompts, like=70)))) if one.purpose is Purpose.FORCING
    ]
    assert len(decoys) >= 3
    for one in decoys:
        prompt = prompts[int(str(one.owner)[1:])]
        assert one.condition is Condition.PROMPT_END
        assert one.prompt == (prompt[0], *prompt[48:79], prompts[90][79], FIRST, 90, 91, 92, 93)


@pytest.mark.parametrize(("shared", "whole"), [(8, False), (9, True), (20, True)])
def test_decoys_are_whole_prompts_where_these_share_a_form_of_words(shared: int, whole: bool) -> None:
    """It may ask for the same answer. The first token is part of a decoy in any case."""
    prompts = long_prompts(shared=shared)
    decoys = [
        one for one in asked(after_tests(without_blocks(load(prompts, like=70)))) if one.purpose is Purpose.FORCING
    ]
    assert decoys
    assert {one.condition for one in decoys} == {None if whole else Condition.PROMPT_END}
    assert {len(one.prompt) for one in decoys} == {85 if whole else 38}


def test_decoys_are_whole_prompts_where_first_tokens_have_no_known_noise() -> None:
    """Then tokens are the only evidence."""
    history = without_blocks(load(long_prompts(), like=70))
    silent = tuple(replace(one, prefill_first=()) if isinstance(one, Ended) else one for one in history.entries)
    forced = [one for one in asked(after_tests(History(silent))) if one.purpose is Purpose.FORCING]
    assert forced
    assert {one.condition for one in forced} == {None}


def test_no_candidate_is_forced_if_none_has_the_same_log_probabilities(prompts: list[tuple[int, ...]]) -> None:
    """Every candidate's answer begins like the victim's: forcing all would cost as much as a load."""
    history = without_blocks(load(prompts, like=500))
    history = History((*history.entries, *answers(asked(history))))
    assert {one.purpose for one in asked(history)} == {Purpose.OWNER_TEST}


def test_the_prompts_most_like_the_best_candidate_are_tested_beside_it(prompts: list[tuple[int, ...]]) -> None:
    """They were sent so long before that their turn would not have come."""
    for number in (2, 5):
        prompts[number] = (*prompts[70][:10], prompts[number][10], *prompts[70][11:])
    history = without_blocks(load(prompts, like=70))
    tests = asked(history)
    assert not {"r2", "r5"} & set(owners_of(tests, Purpose.OWNER_TEST))
    history = History((*history.entries, *answers(tests)))
    assert {"r2", "r5"} <= set(owners_of(asked(history), Purpose.OWNER_TEST)[:4])


def test_a_short_prompt_is_tested_beside_the_best_candidate_only_if_they_share_a_form_of_words(
    prompts: list[tuple[int, ...]],
) -> None:
    """Its test computes what the prompt lacks. Tokens alone may be the same by chance, as in request 5."""
    prompts[2] = prompts[70][:16]
    prompts[5] = prompts[70][15::-1]
    tests = owners_of(asked(after_tests(without_blocks(load(prompts, like=70)))), Purpose.OWNER_TEST)
    assert "r2" in tests
    assert "r5" not in tests


def blocks_answered(history: History) -> History:
    """After the question about the victim's blocks, which were request 70's."""
    (question,) = asked(history)
    end = Ended(191.0, question.request_id, Outcome.OK, choices=(Choice((5, 6, 7)),), first_logprobs=vector(70))
    return History((*history.entries, Sent(190.0, question, "verification", "owners", 190.0), end))


def own_tested(history: History, first: Named) -> History:
    """After the same question to the prefill server, whose first token is ``first``."""
    (test,) = asked(history)
    end = Ended(192.0, test.request_id, Outcome.OK, choices=(Choice((5,)),), first_logprobs=first)
    return History((*history.entries, Sent(191.0, test, "verification", "owners", 191.0), end))


def blocks_forced(history: History, regret: float) -> History:
    """After the teacher forcing of the answer to the question."""
    (forcing,) = asked(history)
    rows = (*(TokenLogprob(token, -1.0, -2.0) for token in forcing.prompt[:25]), TokenLogprob(5, -1.0, -1.0 + regret))
    rows = (None, *rows[1:], TokenLogprob(6, -1.0, -2.0), TokenLogprob(7, -1.0, -2.0))
    end = Ended(193.0, forcing.request_id, Outcome.OK, choices=(Choice((1,)),), prompt_logprobs=rows)
    return History((*history.entries, Sent(192.0, forcing, "verification", "owners", 192.0), end))


def moved(by: float) -> Named:
    """The first token of request 70, with log-probabilities that are so many nats away."""
    return tuple((token, value + by * (-1) ** token) for token, value in vector(70))


def test_the_victims_whole_blocks_are_asked_again_where_decode_keeps_them(prompts: list[tuple[int, ...]]) -> None:
    (question,) = asked(load(prompts, like=70))
    assert question.prompt == prompts[90][:25]
    assert (question.purpose, question.about, question.owner) == (Purpose.OWNER_TEST, VICTIM, None)
    assert (question.route, question.server, question.cache_salt, question.stream) == (Route.DECODE, 0, None, False)


def test_the_same_question_to_the_prefill_server_tells_whether_the_blocks_are_wrong(
    prompts: list[tuple[int, ...]],
) -> None:
    past = blocks_answered(load(prompts, like=70))
    (own,) = asked(past)
    assert (own.prompt, own.route, own.sampling.max_tokens) == (prompts[90][:25], Route.PREFILL, 1)
    assert (own.purpose, own.about, own.owner) == (Purpose.OWNER_TEST, f"{VICTIM}-blocks", VICTIM)
    assert {one.about for one in asked(own_tested(past, vector(90)))} == {f"{VICTIM}-blocks"}
    assert {one.about for one in asked(own_tested(past, vector(70)))} == {VICTIM}


@pytest.mark.parametrize(("regret", "about"), [(4.0, f"{VICTIM}-blocks"), (0.0, VICTIM)])
def test_the_answer_is_forced_where_first_tokens_do_not_tell(
    prompts: list[tuple[int, ...]], regret: float, about: str
) -> None:
    """The limit of noise is 0.0002 nats here; from three times as much on, first tokens are told apart."""
    past = own_tested(blocks_answered(load(prompts, like=70)), moved(4e-4))
    (forcing,) = asked(past)
    assert (forcing.purpose, forcing.owner) == (Purpose.FORCING, None)
    assert forcing.prompt == (*prompts[90][:25], 5, 6, 7)
    assert {one.about for one in asked(blocks_forced(past, regret))} == {about}


def test_the_owner_of_wrong_blocks_is_searched_by_their_answer(prompts: list[tuple[int, ...]]) -> None:
    tests = asked(own_tested(blocks_answered(load(prompts, like=70)), vector(90)))
    assert {one.about for one in tests} == {f"{VICTIM}-blocks"}
    likeliest = next(one for one in tests if one.owner == "r89")
    assert likeliest.prompt == (*prompts[89][:24], prompts[90][24])
    # Requests that were sent after the victim had ended cannot be its owner, nor can the victim.
    assert not {VICTIM, "r91", "r99"} & {str(one.owner) for one in tests}


def test_the_answer_about_wrong_blocks_is_forced_under_the_end_of_its_own_prompt_too() -> None:
    prompts = long_prompts()
    past = own_tested(blocks_answered(load(prompts, like=70)), vector(90))
    now = asked(after_tests(past))
    (own,) = [one for one in now if one.purpose is Purpose.FORCING and one.owner == VICTIM]
    assert own.condition is Condition.PROMPT_END
    # The question has nine whole blocks of eight tokens, and one token more.
    assert own.prompt == (prompts[90][0], *prompts[90][41:73], 5, 6, 7)


def test_blocks_that_the_decode_server_has_lost_are_not_asked_for(prompts: list[tuple[int, ...]]) -> None:
    """After the victim's end, nine requests of 35 tokens were served."""
    past = load(prompts, like=70)
    for blocks, asked_for in ((40, True), (39, False)):
        servers = tuple(replace(one, num_blocks=blocks if one.role is Role.DECODE else None) for one in SERVERS)
        small = replace(VERIFICATION, deployment=replace(VERIFICATION.deployment, servers=servers))
        assert bool(doubted_blocks(small, past)) is asked_for


def test_candidates_whose_blocks_are_cached_whole_are_tested_first(prompts: list[tuple[int, ...]]) -> None:
    """Request 89 is the nearest in time, but has a short prompt; most prompts are no longer in the cache."""
    prompts[89] = prompts[89][:9]
    servers = tuple(replace(one, num_blocks=100 if one.role is Role.PREFILL else None) for one in SERVERS)
    small = replace(VERIFICATION, deployment=replace(VERIFICATION.deployment, servers=servers))
    past = without_blocks(load(prompts, like=70))
    served = through_proxy(past)
    wrong = [one for one in served if one.request.request_id == VICTIM]
    first = next_round(small, past, served, wrong)
    # 784 tokens are those of the 23 requests after request 76, of which nine were sent after the victim.
    assert owners_of(first, Purpose.OWNER_TEST) == [f"r{number}" for number in range(88, 75, -1)]
    past = History((*past.entries, *answers(first)))
    dear = owners_of(next_round(small, past, served, wrong), Purpose.OWNER_TEST)
    assert dear == [f"r{number}" for number in range(75, 43, -1)]


def test_a_budget_pays_for_some_searches_to_the_end(prompts: list[tuple[int, ...]]) -> None:
    """A test computes six tokens and generates one; what confirms an owner costs 256."""
    wrong = ["r80", "r85", "r90"]
    past = without_blocks(load(prompts, like=70), wrong=wrong)
    each = 32 * 7 + 256
    for left, searched in ((math.inf, 3), (3 * each, 3), (2 * each + 256, 2), (each, 1), (256, 0)):
        assert len({one.about for one in asked(past, left=left, wrong=wrong)}) == searched
    assert len(asked(past, most=70, wrong=wrong)) == 70
    # The last search begins with as many tests as can be paid.
    assert len(asked(past, left=each + 256 + 70, wrong=wrong)) == 32 + 10


def test_a_prompt_of_less_than_a_block_has_no_blocks_to_ask_for(prompts: list[tuple[int, ...]]) -> None:
    prompts[90] = prompts[90][:8]
    assert {one.about for one in asked(load(prompts, like=70))} == {VICTIM}
    assert all(one.owner is not None for one in asked(load(prompts, like=70)))


def test_blocks_of_outputs_that_begin_strangely_are_asked_for_before_anything_else(
    prompts: list[tuple[int, ...]],
) -> None:
    """The victim begins as request 70 should; nobody knows yet that its output is wrong."""
    (question,) = doubted_blocks(VERIFICATION, load(prompts, like=70))
    assert question.about == VICTIM
    assert question.prompt == prompts[90][:25]
    assert not doubted_blocks(VERIFICATION, load(prompts, like=90))
    (own,) = doubted_blocks(VERIFICATION, blocks_answered(load(prompts, like=70)))
    assert (own.about, own.owner, own.route) == (question.request_id, VICTIM, Route.PREFILL)
