"""A growth is called sure only if it surely is, and what may have leaked unseen is said."""

import math

import numpy as np
import pytest

from bench.slopes import rate, slope

_X = tuple(range(1, 16))


@pytest.mark.parametrize("seed", range(50))
def test_noise_without_a_trend_is_never_above_zero(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=len(_X))
    assert not slope([(_X, noise)]).surely_above(0)


def test_steps_of_memory_that_go_nowhere_seldom_rise_surely() -> None:
    alike = _autocorrelated(np.random.default_rng(1), 200)
    assert sum(slope([(_X, row)]).surely_above(0) for row in alike) <= 10


def _autocorrelated(random: np.random.Generator, rows: int) -> np.ndarray:
    """Rows of which each point has eight tenths of the one before."""
    noise = random.normal(size=(rows, len(_X) + 30))
    for n in range(1, noise.shape[1]):
        noise[:, n] += 0.8 * noise[:, n - 1]
    return noise[:, 30:]


def test_a_line_has_its_slope_whatever_one_odd_point_says() -> None:
    y = [2.0 * x for x in _X]
    y[3] = 1000.0
    found = slope([(_X, y)])
    assert found.estimate == pytest.approx(2.0)
    assert found.low <= 2.0 <= found.high


def test_rows_have_levels_of_their_own_and_one_slope() -> None:
    found = slope([(_X, [level + 3.0 * x for x in _X]) for level in (0.0, 1e6, -1e6)])
    assert found.low == pytest.approx(found.high) == pytest.approx(3.0)


def test_rows_too_short_alone_suffice_together() -> None:
    short = ((1, 2, 3, 4), (1.0, 2.0, 3.0, 4.0))
    assert not slope([short]).bounded
    assert slope([short] * 20).surely_above(0.5)


def test_few_points_prove_nothing() -> None:
    assert not slope([((1, 2, 3), (1.0, 2.0, 3.0))]).surely_above(0)
    assert not slope([]).bounded
    assert not rate([((1,), (1.0,))]).bounded


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_of_one_block_in_1000_requests_is_found_in_20000(seed: int) -> None:
    leaked = np.cumsum([0, *np.random.default_rng(seed).poisson(1.0, 20)])
    found = rate([(range(21), leaked)])
    assert found.surely_above(0.01)
    assert found.low <= 1.0 <= found.high


def test_no_growth_says_how_much_may_have_been_missed() -> None:
    """With a mean of 7.6 events, there are none in one case of 2,000."""
    found = rate([((0, 50), (3, 3)), ((0, 50), (0, 0))])
    assert found.estimate == found.low == 0
    assert found.high * 100 == pytest.approx(-math.log(0.0005))


def test_what_is_given_back_was_not_leaked() -> None:
    assert rate([(range(6), (0, 9, 0, 7, 0, 0))]).high == rate([(range(6), (0,) * 6)]).high


def test_fifteen_blocks_at_once_are_one_event() -> None:
    assert not rate([(range(21), [0] * 10 + [15] * 11)]).surely_above(0.01)
    assert rate([(range(21), [n // 2 * 15 for n in range(21)])]).surely_above(1)
