"""Whether the blocks that a decode server keeps are another prompt's."""

import numpy as np
import pytest

from harness.history import Choice, Ended, Operation, Outcome, Sent
from harness.scenario import Purpose, Request
from harness.verify.judging.block_questions import blocks_are_wrong
from harness.verify.judging.forcing import ForcedTokens

SERVED = {1: -1.0, 2: -2.0, 3: -3.0, 4: -4.0}
NOISE = 0.1


def question(vector: dict[int, float]) -> Operation:
    request = Request("q", (1, 2), purpose=Purpose.OWNER_TEST, about="w")
    ended = Ended(1.0, "q", Outcome.OK, choices=(Choice((1,)),), first_logprobs=tuple(vector.items()))
    return Operation(Sent(0.0, request, "s", "p", 0.0), ended)


def moved(by: float) -> dict[int, float]:
    """Log-probabilities whose distance from SERVED is ``by``."""
    return {token: value + by * (-1) ** token for token, value in SERVED.items()}


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        (moved(0.0), False),
        (moved(0.09), False),
        # Between once and three times the noise, first tokens do not tell.
        (moved(0.11), None),
        (moved(0.29), None),
        (moved(0.31), True),
        # Other tokens altogether.
        ({7: -1.0, 8: -2.0, 9: -3.0}, True),
        # Too few to compare, as where there was no own test.
        ({1: -1.0, 2: -2.0}, None),
        ({}, None),
    ],
)
def test_first_tokens_tell_beyond_three_times_the_noise(own: dict[int, float], wrong: bool | None) -> None:
    assert blocks_are_wrong(question(SERVED), own, (), near=0.1, noise=NOISE) is wrong


def test_first_tokens_tell_nothing_where_the_noise_is_not_known_or_the_question_has_none() -> None:
    assert blocks_are_wrong(question(SERVED), moved(9.0), (), near=0.1, noise=None) is None
    assert blocks_are_wrong(question({}), moved(9.0), (), near=0.1, noise=NOISE) is None


@pytest.mark.parametrize(("regret", "wrong"), [(0.05, False), (0.2, True)])
def test_teacher_forcing_decides_where_there_is_one(regret: float, wrong: bool) -> None:
    forced = ForcedTokens(np.array([-1.0, -1.0]), np.array([1.0, -regret]))
    assert blocks_are_wrong(question(SERVED), moved(0.2), [forced], near=0.1, noise=NOISE) is wrong
