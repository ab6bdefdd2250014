"""The search for owners where answers tell the first token's log-probabilities; without: test_outputs_verification."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Named, Operation, Outcome, Sent
from harness.scenario import Purpose, Request, Sampling
from harness.verify.asking.options import Verification, VerifyOptions
from harness.verify.asking.outputs import through_proxy
from harness.verify.asking.owners import ROUNDS, next_round, own_tail_prompt, owner_prompt
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
        entries.append(Ended(number + 0.5, f"r{number}", Outcome.OK, choices=(choice,), first_logprobs=first))
    return History(tuple(entries))


def asked(history: History) -> tuple[Request, ...]:
    served = through_proxy(history)
    return tuple(next_round(VERIFICATION, history, served, [o for o in served if o.request.request_id == VICTIM]))


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
    history = load(prompts, like=70)
    history = History((*history.entries, *answers(asked(history))))
    forced = owners_of(asked(history), Purpose.FORCING)
    assert forced[0] == "r70"
    # Every candidate's answer begins like the victim's; the rest are decoys, as many as the tokens ask for.
    assert len(forced) < ROUNDS[0] + 8


def test_the_prompts_most_like_the_best_candidate_are_tested_beside_it(prompts: list[tuple[int, ...]]) -> None:
    """They were sent so long before that their turn would not have come."""
    for number in (2, 5):
        prompts[number] = (*prompts[70][:10], prompts[number][10], *prompts[70][11:])
    history = load(prompts, like=70)
    tests = asked(history)
    assert not {"r2", "r5"} & set(owners_of(tests, Purpose.OWNER_TEST))
    history = History((*history.entries, *answers(tests)))
    assert {"r2", "r5"} <= set(owners_of(asked(history), Purpose.OWNER_TEST)[:4])


def test_candidates_are_also_tested_with_the_last_block_of_the_victim(prompts: list[tuple[int, ...]]) -> None:
    history, every = load(prompts, like=0), list[Request]()
    while requests := [one for one in asked(history) if one.request_id not in {o.request_id for o in every}]:
        every += requests
        history = History((*history.entries, *answers(requests)))
    tests = [one for one in every if one.purpose is Purpose.OWNER_TEST and one.owner == "r80"]
    own = prompts[90]
    assert [one.prompt for one in tests] == [(*prompts[80][:29], own[29]), (*prompts[80][:24], *own[24:])]
    assert len({one.request_id for one in every}) == len(every)


def test_only_whole_blocks_that_differ_make_a_prompt_with_the_victims_last_block() -> None:
    def of(prompt: tuple[int, ...]) -> Operation:
        return Operation(Sent(0.0, Request("r", prompt), "load", "load", 0.0), Ended(1.0, "r", Outcome.OK))

    victim = of(tuple(range(100, 120)))
    assert own_tail_prompt(of(tuple(range(40))), victim, BLOCK) == (*range(16), *range(116, 120))
    assert own_tail_prompt(of(tuple(range(9))), victim, BLOCK) == (*range(8), *range(108, 120))
    assert own_tail_prompt(of((*range(100, 116), 1, 2, 3, 4)), victim, BLOCK) is None
    assert own_tail_prompt(of(tuple(range(7))), victim, BLOCK) is None
    whole = of(tuple(range(100, 117)))
    assert own_tail_prompt(of(tuple(range(40))), whole, BLOCK) == owner_prompt(of(tuple(range(40))), whole, BLOCK)
