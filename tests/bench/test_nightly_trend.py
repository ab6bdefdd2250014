"""Steps are dated to their night, drifts are called drifts, and even series have neither, whatever the noise."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest

from bench.nightly.limits import FEWEST, interval_limit, split_limit
from bench.nightly.ranks import SHORTEST, normal_scores, scored, split_statistics
from bench.nightly.trend import PAGE_ALPHA, Kind, changes, correlation

ALPHA = PAGE_ALPHA / 30
"""As on a page of thirty series."""
Draw = Callable[[np.random.Generator, int], np.ndarray]

# Other noise than that of bench/trend.py, by which the method was chosen.
NOISE: dict[str, Draw] = {
    "laplace": lambda rng, n: rng.laplace(size=n),
    "gamma": lambda rng, n: rng.gamma(0.7, size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "uniform": lambda rng, n: rng.uniform(-2, 2, n),
    "one of three values": lambda rng, n: rng.integers(0, 3, n).astype(float),
    "moving average": lambda rng, n: np.convolve(rng.standard_normal(n + 1), [1, 0.3], "valid"),
}


def series(draw: Draw, nights: int, seed: int, *, deviation: float = 0.02) -> np.ndarray:
    noise = draw(np.random.default_rng([seed, nights]), nights)
    return np.asarray(50 * np.maximum(1 + deviation * noise, 0.1))


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("nights", [40, 90])
def test_even_series_have_no_change(noise: str, nights: int) -> None:
    """Thirty series, which would be a page: a change on it has a probability of one in two hundred."""
    found = [changes(series(NOISE[noise], nights, seed).tolist(), ALPHA) for seed in range(30)]
    assert [one for one in found if one] == []


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE)
def test_few_of_many_even_pages_name_a_change(noise: str) -> None:
    """Of 100 pages of 30 series, at most 2: with the stated 0.5 % a third one has a probability of 1.4 %."""
    pages = range(100)
    wrong = [
        page
        for page in pages
        if any(changes(series(NOISE[noise], 40, 1000 + 30 * page + one).tolist(), ALPHA) for one in range(30))
    ]
    assert len(wrong) <= 2


@pytest.mark.parametrize("at", [10, 20, 32])
@pytest.mark.parametrize("effect", [0.15, 0.5, -0.2])
def test_a_step_in_forty_nights_is_dated_to_its_night(at: int, effect: float) -> None:
    for seed in range(12):
        values = series(NOISE["laplace"], 40, seed, deviation=0.01)
        values[at:] *= 1 + effect
        (change,) = changes(values.tolist(), ALPHA)
        assert (change.kind, change.until) == (Kind.STEP, change.at)
        assert abs(change.at - at) <= 1
        assert change.after / change.before - 1 == pytest.approx(effect, abs=0.03)


def test_steps_up_and_down_are_both_found() -> None:
    values = series(NOISE["laplace"], 120, 3, deviation=0.01)
    values[40:55] *= 1.2
    values[90:] *= 0.9
    found = changes(values.tolist(), ALPHA)
    assert [(one.at, one.kind) for one in found] == [(40, Kind.STEP), (55, Kind.STEP), (90, Kind.STEP)]


def test_a_drift_is_no_step() -> None:
    values = series(NOISE["laplace"], 80, 4, deviation=0.01) * np.linspace(1, 1.3, 80)
    (change,) = changes(values.tolist(), ALPHA)
    assert change.kind is Kind.DRIFT
    assert change.after > change.before


def test_a_drift_between_two_levels_is_dated() -> None:
    slope = np.interp(np.arange(120), [50, 80], [1, 1.3])
    (change,) = changes((series(NOISE["laplace"], 120, 5, deviation=0.005) * slope).tolist(), ALPHA)
    assert change.kind is Kind.DRIFT
    assert abs(change.at - 51) <= 4
    assert abs(change.until - 80) <= 4


def test_one_wild_night_is_no_change() -> None:
    values = series(NOISE["laplace"], 60, 6)
    values[59] *= 10
    values[30] *= 100
    assert changes(values.tolist(), ALPHA) == ()


def test_a_step_is_called_when_there_are_enough_nights_after_it() -> None:
    """With 100 nights, a step far beyond the noise is called after four to six of the strictest page."""
    values = series(NOISE["uniform"], 100, 7, deviation=0.002)
    called = []
    for after in range(1, 10):
        stepped = values.copy()
        stepped[100 - after :] *= 1.5
        called.append(bool(changes(stepped.tolist(), ALPHA)))
    first = called.index(True) + 1
    assert 4 <= first <= 6
    assert all(called[first - 1 :])


@pytest.mark.parametrize("values", [[], [5.0], [5.0] * 200, list(range(1, FEWEST))])
def test_too_few_or_equal_nights_have_no_change(values: Sequence[float]) -> None:
    assert changes(values, ALPHA) == ()


def test_values_of_any_sign_are_compared_by_their_differences() -> None:
    values = [-1.0, 1.0] * 20 + [9.0, 11.0] * 20
    (change,) = changes(values, ALPHA)
    assert (change.at, change.kind) == (40, Kind.STEP)


def test_neighbours_that_resemble_each_other_are_noticed() -> None:
    rng = np.random.default_rng(8)
    independent = rng.standard_normal(400)
    related = np.empty(400)
    related[0] = independent[0]
    for night in range(1, 400):
        related[night] = 0.6 * related[night - 1] + independent[night]
    assert correlation(independent) < 0.2
    assert 0.5 < correlation(related) < 0.75


def test_nights_that_resemble_their_neighbours_seldom_look_like_a_change() -> None:
    """A test that took them for independent would name changes in about one series of six."""

    def related(seed: int) -> list[float]:
        left = 100 + np.random.default_rng(seed).standard_normal(120)
        for night in range(1, 120):
            left[night] += 0.5 * (left[night - 1] - 100)
        return [float(value) for value in left]

    assert sum(bool(changes(related(seed), ALPHA)) for seed in range(60)) <= 1


@pytest.mark.parametrize("step", [0.0, 50.0])
def test_a_step_is_not_taken_for_neighbours_that_resemble_each_other(step: float) -> None:
    values = np.random.default_rng(9).standard_normal(400)
    values[250:] += step
    assert correlation(values) < 0.2


def test_scores_are_those_of_ranks() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0**6])
    assert scored(values) == pytest.approx(normal_scores(4)[[2, 0, 1, 3]])
    assert normal_scores(9).sum() == pytest.approx(0)
    assert (normal_scores(9) ** 2).sum() == pytest.approx(8)


def test_a_split_is_measured_in_standard_errors() -> None:
    """The variance of a mean of some of all scores, when each choice of them is equally likely, is known exactly."""
    size, first = 8, 3
    scores = normal_scores(size)
    every = [sum(scores[list(chosen)]) for chosen in combinations(range(size), first)]
    assert split_statistics(scores)[first - SHORTEST] == pytest.approx(abs(scores[:first].sum()) / np.std(every))


@pytest.mark.slow
@pytest.mark.parametrize("nights", [23, 33, 60, 160])
def test_limits_between_those_of_the_table_hold(nights: int) -> None:
    """Of 40,000 random orders, 1 in 100 exceeds the limit of splits: 400 plus or minus five standard errors."""
    rng = np.random.default_rng(nights)
    orders = rng.permuted(np.broadcast_to(normal_scores(nights), (40_000, nights)), axis=1)
    beyond = int((split_statistics(orders).max(-1) > split_limit(nights, 0.01)).sum())
    assert 300 < beyond < 500


def test_limits_rise_with_nights_and_with_strictness() -> None:
    for limit in (split_limit, interval_limit):
        assert limit(40, 1e-3) < limit(41, 1e-3) < limit(41, 1e-4)
        assert limit(1000, 1e-3) == limit(400, 1e-3)
