"""The near limit on noise drawn by numpy: how often it is exceeded, and how wide it is."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from harness.verify.judging.noise import MIN_SAMPLE, near_limit

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
ALPHA = 0.01
"""Ten times that of a run, so that a few hundred trials suffice."""

THIN: dict[str, Draw] = {
    "normal": lambda rng, n: np.abs(rng.normal(size=n)),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform, half of it nothing": lambda rng, n: rng.random(n) * (rng.random(n) < 0.5),
    "steps, most of them none": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.35)),
    "steps": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.8)),
    "steps of four roundings": lambda rng, n: np.abs(np.round(rng.normal(size=(4, n)) * 0.35).sum(axis=0)),
    "ill-conditioned places": lambda rng, n: np.abs(rng.normal(size=n)) * rng.random(n) ** 2,
}


@pytest.mark.parametrize(("n", "future"), [(MIN_SAMPLE, 200), (640, 2560), (640, 40_000)])
@pytest.mark.parametrize("name", THIN)
def test_noise_of_the_same_kind_exceeds_the_limit_no_more_often_than_stated(name: str, n: int, future: int) -> None:
    rng, draw = np.random.default_rng(1), THIN[name]
    crossed = sum(
        bool((draw(rng, future) > (near_limit(draw(rng, n), future, ALPHA) or 0.0)).any()) for _ in range(200)
    )
    # 200 trials with a probability of 1 % each: more than 7 have a probability of 0.1 %.
    assert crossed <= 7


def test_for_an_exponential_tail_the_limit_is_near_the_quantile_of_its_true_scale() -> None:
    rng = np.random.default_rng(2)
    limits = [near_limit(rng.exponential(size=640), 2560, 1e-3) or 0.0 for _ in range(100)]
    assert np.log(2560 / 1e-3) < np.median(limits) < 1.5 * np.log(2560 / 1e-3)


def test_the_limit_has_the_unit_of_the_sample() -> None:
    sample = np.random.default_rng(3).exponential(size=640)
    assert near_limit(sample * 1e-5, 100, 1e-3) == pytest.approx(1e-5 * (near_limit(sample, 100, 1e-3) or 0.0))


def test_more_tested_values_and_a_smaller_alpha_widen_the_limit() -> None:
    sample = np.random.default_rng(3).exponential(size=640)
    limits = [
        near_limit(sample, future, alpha) or 0.0 for future, alpha in ((100, 1e-2), (10_000, 1e-2), (10_000, 1e-4))
    ]
    assert limits == sorted(limits)
    assert limits[0] < limits[2]


def test_the_limit_of_equal_values_allows_one_more_step() -> None:
    assert (near_limit(np.full(200, 0.0625), 200, 1e-3) or 0.0) > 0.125


def test_the_limit_of_zeros_is_zero() -> None:
    assert near_limit(np.zeros(200), 200, 1e-3) == 0.0


def test_rounding_of_float32_does_not_hide_steps() -> None:
    rng = np.random.default_rng(4)
    steps = np.abs(np.round(rng.normal(size=640) * 0.8))
    fuzzy = np.abs(steps + rng.normal(size=640) * 1e-6)
    assert near_limit(fuzzy, 2560, 1e-3) == pytest.approx(near_limit(steps, 2560, 1e-3), rel=1e-3)


@pytest.mark.parametrize("sample", [np.ones(MIN_SAMPLE - 1), np.array([np.nan] * 200), np.empty(0)])
def test_a_small_sample_or_nan_has_no_limit(sample: npt.NDArray[np.float64]) -> None:
    assert near_limit(sample, 100, 1e-3) is None
