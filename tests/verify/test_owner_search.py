"""The search for owners where answers tell the first token's log-probabilities; without: test_outputs_verification."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Named, Outcome, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Route, Sampling
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


def load(prompts: Sequence[tuple[int, ...]], like: int) -> History:
    """The victim's first token has the log-probabilities that the prompt of request ``like`` has."""
    entries: list[Entry] = []
    for number, prompt in enumerate(prompts):
        first = vector(like if f"r{number}" == VICTIM else number)
        entries.append(Sent(float(number), Request(f"r{number}", prompt, Sampling()), "load", "load", float(number)))
        choice = Choice((FIRST, *range(number, number + 4)))
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


def asked(history: History) -> tuple[Request, ...]:
    served = through_proxy(history)
    return tuple(next_round(VERIFICATION, history, served, [o for o in served if o.request.request_id == VICTIM]))


def without_blocks(history: History) -> History:
    """After the question about the victim's blocks, which the decode server refused."""
    (question,) = asked(history)
    sent = Sent(190.0, question, "verification", "owners", 190.0)
    return History((*history.entries, sent, Ended(191.0, question.request_id, Outcome.FAIL, "400")))


def answers(requests: Sequence[Request]) -> Iterator[Entry]:
    for request in requests:
        first = vector(int(str(request.owner)[1:]))
        yield Sent(200.0, request, "verification", "owners", 200.0)
        yield Ended(201.0, request.request_id, Outcome.OK, choices=(Choice((FIRST,)),), first_logprobs=first)


def owners_of(requests: Sequence[Request], purpose: Purpose) -> list[str]:
    return [str(request.owner) for request in requests if request.purpose is purpose]


@pytest.fixture
def prompts() -> list[tuple[int, ...]]:
    rng = np.random.default_rng(4)
    return [tuple(int(token) for token in rng.integers(100, 9000, 30)) for _ in range(100)]


def test_the_nearest_candidates_are_forced_first_and_not_all_that_begin_alike(prompts: list[tuple[int, ...]]) -> None:
    history = without_blocks(load(prompts, like=70))
    history = History((*history.entries, *answers(asked(history))))
    forced = owners_of(asked(history), Purpose.FORCING)
    assert forced[0] == "r70"
    # Every candidate's answer begins like the victim's; the rest are decoys, as many as the tokens ask for.
    assert len(forced) < ROUNDS[0] + 8


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


def blocks_answered(history: History, regret: float) -> History:
    """After the question about the victim's blocks and its teacher forcing."""
    (question,) = asked(history)
    end = Ended(191.0, question.request_id, Outcome.OK, choices=(Choice((5, 6, 7)),), first_logprobs=vector(70))
    history = History((*history.entries, Sent(190.0, question, "verification", "owners", 190.0), end))
    (forcing,) = asked(history)
    rows = (*(TokenLogprob(token, -1.0, -2.0) for token in question.prompt), TokenLogprob(5, -1.0, -1.0 + regret))
    rows = (None, *rows[1:], TokenLogprob(6, -1.0, -2.0), TokenLogprob(7, -1.0, -2.0))
    end = Ended(193.0, forcing.request_id, Outcome.OK, choices=(Choice((1,)),), prompt_logprobs=rows)
    return History((*history.entries, Sent(192.0, forcing, "verification", "owners", 192.0), end))


def test_the_victims_whole_blocks_are_asked_again_where_decode_keeps_them(prompts: list[tuple[int, ...]]) -> None:
    (question,) = asked(load(prompts, like=70))
    assert question.prompt == prompts[90][:25]
    assert (question.purpose, question.about, question.owner) == (Purpose.OWNER_TEST, VICTIM, None)
    assert (question.route, question.server, question.cache_salt, question.stream) == (Route.DECODE, 0, None, False)


def test_the_owner_of_wrong_blocks_is_searched_by_their_answer(prompts: list[tuple[int, ...]]) -> None:
    tests = asked(blocks_answered(load(prompts, like=70), regret=4.0))
    assert {one.about for one in tests} == {f"{VICTIM}-blocks"}
    likeliest = next(one for one in tests if one.owner == "r89")
    assert likeliest.prompt == (*prompts[89][:24], prompts[90][24])
    # Requests that were sent after the victim had ended cannot be its owner, nor can the victim.
    assert not {VICTIM, "r91", "r99"} & {str(one.owner) for one in tests}


def test_the_output_itself_is_searched_for_if_its_blocks_are_right(prompts: list[tuple[int, ...]]) -> None:
    tests = asked(blocks_answered(load(prompts, like=70), regret=0.0))
    assert {one.about for one in tests} == {VICTIM}


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
