"""Outputs that share the probability of a false alarm, and the rising line of Benjamini and Hochberg."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.verify.judging.averages import Kind
from harness.verify.judging.families import step_up
from harness.verify.judging.floor import NoiseFloor, measure_floor
from harness.verify.judging.forcing import Forced
from harness.verify.judging.sample import Outputs, SampleNoise

RATIOS = st.lists(st.one_of(st.floats(0, 30), st.integers(0, 30).map(float), st.just(float("inf"))), max_size=25)


def naive(ratios: Sequence[float]) -> int:
    """The largest K for which K ratios are K at most, by trying each; 1 at least."""
    return max((k for k in range(1, len(ratios) + 1) if sum(one <= k for one in ratios) >= k), default=1)


@given(ratios=RATIOS)
def test_the_step_is_that_of_a_search_through_all_of_them(ratios: list[float]) -> None:
    assert step_up(ratios) == naive(ratios)


def test_the_steps_of_a_few_ratios() -> None:
    assert step_up([]) == step_up([5.0]) == step_up([1.0, 2.1, 3.1]) == 1
    # The third is within the line, and so the second counts though it is above it.
    assert step_up([0.5, 2.9, 3.0]) == 3
    assert step_up([2.0, float("inf"), 2.0]) == 2


def outputs(count: int, seed: int, tokens: int = 20) -> list[Forced]:
    rng = np.random.default_rng(seed)
    return [
        Forced(np.zeros(tokens), *np.abs(rng.normal(scale=0.01, size=(2, tokens))), rng.exponential(size=tokens))
        for _ in range(count)
    ]


def floor(drawn: int, suspects: int) -> NoiseFloor:
    found = measure_floor(Outputs(outputs(32, 1), outputs(drawn, 2), outputs(suspects, 3)))
    assert isinstance(found, NoiseFloor)
    return found


@pytest.mark.parametrize("drawn", [100, 200])
def test_a_suspect_has_the_limits_of_an_output_that_shares_with_five_times_as_many(drawn: int) -> None:
    found = floor(drawn, drawn // 5)
    assert found.far_of_suspects.average == pytest.approx(found.far.average)
    assert found.far_of_suspects.drift == pytest.approx(found.far.drift)
    assert found.far_of_suspects.regret == pytest.approx(found.far.regret)


def test_few_suspects_have_lower_limits_than_others_and_many_have_higher_ones() -> None:
    few, many = floor(200, 4), floor(200, 200)
    for key in ((kind, 20) for kind in Kind):
        assert few.far_of_suspects.average[key] < few.far.average[key]
        assert many.far_of_suspects.average[key] > many.far.average[key]
    assert few.far_of_suspects.drift < few.far.drift
    assert many.far_of_suspects.drift > many.far.drift


def test_suspects_take_half_of_the_probability_from_the_others_however_many_they_are() -> None:
    """With half of it, 100 outputs have the limits that 200 have with all of it."""
    controls, drawn, suspects = outputs(32, 1), outputs(100, 2), outputs(50, 3)
    noise = SampleNoise.of(Outputs(controls, drawn))
    _, twice, _ = noise.limits(Outputs(controls, [*drawn, *drawn]))
    for number in (1, 50):
        _, shared, _ = noise.limits(Outputs(controls, drawn, suspects[:number]))
        assert shared.drift == pytest.approx(twice.drift)
        assert shared.average == pytest.approx(twice.average)
