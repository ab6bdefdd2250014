"""How far noise reaches, against noise drawn by numpy: how often the limit is crossed, and how wide it is."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from harness.verify.judging.noise import LEAST, noise_limit

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
ALPHA = 0.01  # ten times that of a run, so that a few hundred trials can show it

THIN: dict[str, Draw] = {
    "normal": lambda rng, n: np.abs(rng.normal(size=n)),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform, half of it nothing": lambda rng, n: rng.random(n) * (rng.random(n) < 0.5),
    "steps, most of them none": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.35)),
    "steps": lambda rng, n: np.abs(np.round(rng.normal(size=n) * 0.8)),
    "steps of four roundings": lambda rng, n: np.abs(np.round(rng.normal(size=(4, n)) * 0.35).sum(axis=0)),
    "ill-conditioned places": lambda rng, n: np.abs(rng.normal(size=n)) * rng.random(n) ** 2,
}


@pytest.mark.parametrize(("n", "future"), [(LEAST, 200), (640, 2560), (640, 40_000)])
@pytest.mark.parametrize("name", THIN)
def test_noise_of_the_same_kind_crosses_the_limit_no_more_often_than_stated(name: str, n: int, future: int) -> None:
    rng, draw = np.random.default_rng(1), THIN[name]
    crossed = sum(
        bool((draw(rng, future) > (noise_limit(draw(rng, n), future, ALPHA) or 0.0)).any()) for _ in range(200)
    )
    assert crossed <= 7  # of 200 at one in a hundred: more has a chance of 0.1 %


def test_for_an_exponential_tail_the_limit_is_near_the_one_that_knows_its_scale() -> None:
    rng = np.random.default_rng(2)
    limits = [noise_limit(rng.exponential(size=640), 2560, 1e-3) or 0.0 for _ in range(100)]
    assert np.log(2560 / 1e-3) < np.median(limits) < 1.5 * np.log(2560 / 1e-3)


def test_the_limit_has_the_samples_unit() -> None:
    sample = np.random.default_rng(3).exponential(size=640)
    assert noise_limit(sample * 1e-5, 100, 1e-3) == pytest.approx(1e-5 * (noise_limit(sample, 100, 1e-3) or 0.0))


def test_more_to_judge_and_a_smaller_chance_widen_it() -> None:
    sample = np.random.default_rng(3).exponential(size=640)
    limits = [
        noise_limit(sample, future, alpha) or 0.0 for future, alpha in ((100, 1e-2), (10_000, 1e-2), (10_000, 1e-4))
    ]
    assert limits == sorted(limits)
    assert limits[0] < limits[2]


def test_equal_values_leave_room_for_a_step_more() -> None:
    assert (noise_limit(np.full(200, 0.0625), 200, 1e-3) or 0.0) > 0.125


def test_a_sample_of_nothing_has_a_limit_of_nothing() -> None:
    assert noise_limit(np.zeros(200), 200, 1e-3) == 0.0


def test_what_float32_adds_to_steps_does_not_hide_them() -> None:
    rng = np.random.default_rng(4)
    steps = np.abs(np.round(rng.normal(size=640) * 0.8))
    fuzzy = np.abs(steps + rng.normal(size=640) * 1e-6)
    assert noise_limit(fuzzy, 2560, 1e-3) == pytest.approx(noise_limit(steps, 2560, 1e-3), rel=1e-3)


@pytest.mark.parametrize("sample", [np.ones(LEAST - 1), np.array([np.nan] * 200), np.empty(0)])
def test_too_little_or_no_number_is_no_limit(sample: npt.NDArray[np.float64]) -> None:
    assert noise_limit(sample, 100, 1e-3) is None
