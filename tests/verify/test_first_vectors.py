"""Log-probabilities of first tokens: how far apart they are, and how likely they fit by chance."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from harness.history import Choice, Ended, Operation, Outcome, Sent, TokenLogprob
from harness.scenario import Request
from harness.verify.judging.first_token import (
    RESOLUTION,
    chance_of_vector,
    distance,
    served_vector,
    vector_noise,
)

ONE = {1: -0.5, 2: -1.5, 3: -2.0, 4: -3.0, 5: -4.0}


def shifted(by: float) -> dict[int, float]:
    return {token: value + by for token, value in ONE.items()}


def test_a_common_shift_is_no_distance() -> None:
    assert distance(ONE, shifted(0.125)) == pytest.approx(0.0)


def test_the_distance_is_the_standard_deviation_of_the_differences() -> None:
    other = {1: -0.4, 2: -1.6, 3: -2.0, 4: -3.0, 5: -4.0}
    assert distance(ONE, other) == pytest.approx(np.std([-0.1, 0.1, 0.0, 0.0, 0.0]))


def test_a_token_that_is_missing_counts_as_far_as_it_should_have_been_named() -> None:
    """The fifth place may be taken by another token within the noise, the first place may not."""
    last = {1: -0.5, 2: -1.5, 3: -2.0, 4: -3.0, 6: -4.0}
    first = {6: -0.5, 2: -1.5, 3: -2.0, 4: -3.0, 5: -4.0}
    assert distance(ONE, last) == pytest.approx(0.0)
    assert distance(ONE, first) > 1.0


def test_vectors_with_two_common_tokens_are_incomparable() -> None:
    assert math.isinf(distance(ONE, {1: -0.5, 2: -1.5, 8: -2.0, 9: -3.0, 10: -4.0}))


def ended(served: dict[int, float], prefill: dict[int, float]) -> Operation:
    end = Ended(1.0, "r", Outcome.OK, first_logprobs=tuple(served.items()), prefill_first=tuple(prefill.items()))
    return Operation(Sent(0.0, Request("r", (1,)), "load", "load", 0.0), end)


def noisy(count: int, sigma: float) -> Iterator[Operation]:
    rng = np.random.default_rng(3)
    for _ in range(count):
        yield ended(ONE, {token: value + float(rng.normal(scale=sigma)) for token, value in ONE.items()})


def test_noise_is_what_right_outputs_show() -> None:
    limit = vector_noise(noisy(200, 0.05))
    assert limit is not None
    assert all(distance(served_vector(one), dict(one.ended.prefill_first)) < limit for one in noisy(200, 0.05))
    assert limit < 0.3


def test_servers_that_are_equal_to_the_last_bit_have_the_noise_of_the_arithmetic() -> None:
    assert vector_noise(noisy(50, 0.0)) == RESOLUTION


def test_noise_is_not_known_from_few_outputs_or_where_the_prefill_server_says_nothing() -> None:
    assert vector_noise(noisy(10, 0.05)) is None
    assert vector_noise([ended(ONE, {}) for _ in range(100)]) is None


def test_values_that_are_no_numbers_or_stand_for_minus_infinity_are_left_out() -> None:
    assert served_vector(ended({1: math.nan, 2: -9999.0, 3: -1.0}, {})) == {3: -1.0}


def test_an_answer_with_log_probabilities_of_each_token_has_a_vector_too() -> None:
    choice = Choice((4,), logprobs=(TokenLogprob(4, -0.5, -1.0, 5, -2.0, 6),))
    end = Ended(1.0, "r", Outcome.OK, choices=(choice,))
    one = Operation(Sent(0.0, Request("r", (1,)), "load", "load", 0.0), end)
    assert served_vector(one) == {4: -0.5, 5: -1.0, 6: -2.0}


def moved(by: float) -> dict[int, float]:
    """A vector at this distance."""
    signs = dict(zip(ONE, (1, -1, 1, -1, 0), strict=True))
    return {token: value + signs[token] * by / math.sqrt(0.8) for token, value in ONE.items()}


def test_the_probability_falls_as_the_square_of_the_distance() -> None:
    chance = chance_of_vector(ONE, moved(0.04), [moved(0.8), moved(-1.2)], noise=0.05)
    assert chance == pytest.approx((0.04 / 0.8) ** 2)


def test_a_vector_that_does_not_fit_or_is_not_alone_shows_nothing() -> None:
    assert chance_of_vector(ONE, moved(0.06), [moved(1.0)], noise=0.05) == 1.0
    assert chance_of_vector(ONE, moved(0.01), [moved(1.0), moved(0.1)], noise=0.05) == 1.0
    assert chance_of_vector(ONE, moved(0.01), [], noise=0.05) == 1.0


def test_the_stated_probability_is_not_exceeded() -> None:
    """Vectors of five tokens at random: how often one of 40 others fits as well as chance is said to allow."""
    rng = np.random.default_rng(8)
    tried, stated = 500, 0.02
    said = 0
    for _ in range(tried):
        vectors = [dict(enumerate(row)) for row in rng.normal(scale=1.5, size=(41, 5)) - 4.0]
        apart = [distance(vectors[0], one) for one in vectors[1:]]
        owner = int(np.argmin(apart)) + 1
        others = [one for place, one in enumerate(vectors[1:], 1) if place != owner]
        said += chance_of_vector(vectors[0], vectors[owner], others, noise=0.2) <= stated
    assert said <= tried * stated
