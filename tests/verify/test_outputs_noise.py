"""The estimated tail of noise drawn by numpy: how often its limit is exceeded, and how wide it is."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from harness.verify.judging.noise import MIN_SAMPLE, Expected, Sample, Tails, estimate_tails, shape_of_tail

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
ALPHA = 0.01
"""Ten times that of a run, so that a few hundred trials suffice."""
LIGHT, HEAVY = Expected(0.05, 0.1), Expected(0.33, 0.1)

THIN: dict[str, Draw] = {
    "normal": lambda rng, n: np.abs(rng.normal(size=n)),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform, half of it nothing": lambda rng, n: rng.random(n) * (rng.random(n) < 0.5),
    "steps, most of them none": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.35)),
    "steps": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.8)),
    "steps of four roundings": lambda rng, n: np.abs(np.round(rng.normal(size=(4, n)) * 0.35).sum(axis=0)),
    "ill-conditioned places": lambda rng, n: np.abs(rng.normal(size=n)) * rng.random(n) ** 2,
}


def tails(values: npt.NDArray[np.float64], future: int, expected: Expected = LIGHT, *, certain: bool = True) -> Tails:
    return estimate_tails(Sample(values, np.full(len(values), certain)), future, expected)


@pytest.mark.parametrize(("n", "future"), [(100, 200), (640, 2560), (640, 40_000)])
@pytest.mark.parametrize("name", THIN)
def test_noise_of_the_same_kind_exceeds_the_limit_no_more_often_than_stated(name: str, n: int, future: int) -> None:
    rng, draw = np.random.default_rng(1), THIN[name]
    crossed = sum(
        bool((draw(rng, future) > tails(draw(rng, n), future).limit(ALPHA / future)).any()) for _ in range(200)
    )
    # 200 trials with a probability of 1 % each: more than 7 have a probability of 0.1 %.
    assert crossed <= 7


def test_pareto_noise_exceeds_the_limit_no_more_often_than_stated_if_it_is_expected_to_be_heavy() -> None:
    rng, crossed = np.random.default_rng(9), 0
    for _ in range(300):
        limit = tails(1 + rng.pareto(3, size=500), 500, HEAVY).limit(0.02 / 500)
        crossed += bool((1 + rng.pareto(3, size=500) > limit).any())
    # 300 trials with a probability of 2 % each: more than 14 have a probability of 0.2 %.
    assert crossed <= 14


def test_for_an_exponential_tail_the_limit_is_near_the_quantile_of_its_true_scale() -> None:
    rng = np.random.default_rng(2)
    limits = [tails(rng.exponential(size=640), 2560).limit(1e-3 / 2560) for _ in range(100)]
    assert np.log(2560 / 1e-3) < np.median(limits) < 3 * np.log(2560 / 1e-3)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_the_shape_of_a_tail_is_found(shape: float) -> None:
    """The sample is drawn by the inverse of the generalised Pareto distribution; a large one outweighs expectation."""
    chance = np.random.default_rng(5).random(20_000)
    values = -np.log(chance) if shape == 0 else (chance**-shape - 1) / shape
    sample = Sample(values, np.full(len(values), fill_value=True))
    assert shape_of_tail(sample, Expected(0.1, 0.3), part=0.2) == pytest.approx(shape, abs=0.06)


def test_the_probability_is_that_with_which_the_limit_is_exceeded() -> None:
    found = tails(np.random.default_rng(3).exponential(size=640), 100)
    for probability in (1e-3, 1e-6, 1e-9):
        assert found.probability(found.limit(probability)) == pytest.approx(probability)


def test_the_limit_has_the_unit_of_the_sample() -> None:
    sample = np.random.default_rng(3).exponential(size=640)
    assert tails(sample * 1e-5, 100).limit(1e-5) == pytest.approx(1e-5 * tails(sample, 100).limit(1e-5))


def test_a_smaller_probability_widens_the_limit() -> None:
    found = tails(np.random.default_rng(3).exponential(size=640), 100)
    assert found.limit(1e-4) < found.limit(1e-6) < found.limit(1e-8)


def test_a_few_values_far_out_do_not_move_the_limit() -> None:
    rng = np.random.default_rng(6)
    noise, damage = np.abs(rng.normal(size=300)) + 1, np.full(10, 12.0)
    clean = tails(noise, 310, certain=False).limit(1e-3 / 310)
    assert tails(np.concatenate([noise, damage]), 310, certain=False).limit(1e-3 / 310) < 1.1 * clean < 12


def test_values_that_are_certainly_noise_count_however_large_they_are() -> None:
    values = np.concatenate([np.abs(np.random.default_rng(6).normal(size=300)) + 1, np.full(10, 12.0)])
    assert tails(values, 310, certain=True).limit(1e-3 / 310) > 12


def test_values_of_one_output_count_once_in_the_tail() -> None:
    values = np.concatenate([np.full(950, 1.0), np.linspace(1.1, 1.5, 50)])
    certain = np.full(1000, fill_value=True)
    alone, together = (Sample(values, certain, outputs) for outputs in (np.arange(1000), np.repeat(np.arange(20), 50)))
    limits = [estimate_tails(one, 100, LIGHT, part=0.05).limit(1e-5) for one in (alone, together)]
    assert limits[0] < limits[1]


def test_the_limit_of_equal_values_allows_one_more_step() -> None:
    assert tails(np.full(200, 0.0625), 200).limit(1e-3 / 200) > 0.125


def test_the_limit_of_zeros_is_zero() -> None:
    found = tails(np.zeros(200), 200)
    assert found.limit(1e-5) == 0.0
    assert found.probability(1e-9) == 0.0


def test_rounding_of_float32_does_not_hide_steps() -> None:
    rng = np.random.default_rng(4)
    steps = np.abs(np.round(rng.normal(size=640) * 0.8))
    fuzzy = np.abs(steps + rng.normal(size=640) * 1e-6)
    assert tails(fuzzy, 2560).limit(1e-6) == pytest.approx(tails(steps, 2560).limit(1e-6), rel=0.02)


@pytest.mark.parametrize("sample", [np.ones(MIN_SAMPLE - 1), np.array([np.nan] * 200), np.empty(0)])
def test_a_small_sample_or_nan_shows_nothing(sample: npt.NDArray[np.float64]) -> None:
    found = tails(sample, 100)
    assert found.limit(1e-3) == np.inf
    assert found.probability(1e9) == 1.0
