"""A slope is called positive only if it surely is."""

import numpy as np
import pytest

from bench.slopes import slope

_X = tuple(range(1, 16))


@pytest.mark.parametrize("seed", range(50))
def test_noise_without_a_trend_is_never_above_zero(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=len(_X))
    assert not slope(_X, noise).surely_above(0)


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_of_one_block_in_1000_requests_is_found_among_noise(seed: int) -> None:
    leaked = np.cumsum(np.random.default_rng(seed).poisson(1.0, len(_X)))
    assert slope(_X, leaked).surely_above(0.1)


def test_a_line_has_its_slope_whatever_one_odd_point_says() -> None:
    y = [2.0 * x for x in _X]
    y[3] = 1000.0
    found = slope(_X, y)
    assert found.estimate == pytest.approx(2.0)
    assert found.low <= 2.0 <= found.high


def test_few_points_prove_nothing() -> None:
    assert not slope((1, 2, 3), (1.0, 2.0, 3.0)).surely_above(0)


def test_steps_are_found_between_levels() -> None:
    assert slope(_X, [x // 2 for x in _X]).surely_above(0.1)
