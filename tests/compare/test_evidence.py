"""Whether a difference is real: against enumeration, textbook formulas, and draws from known distributions."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compare.evidence import (
    Answer,
    Evidence,
    Sides,
    apart,
    enough_runs,
    holm,
    interval,
    judge_family,
    permutation_p,
)

values = st.lists(st.floats(1.0, 1e4), min_size=3, max_size=5, unique=True).map(tuple)
EVEN = Sides((10.0, 10.1, 9.9, 10.05, 9.95), (10.02, 9.98, 10.08, 9.92, 10.0))


def test_runs_that_all_began_at_one_time_show_no_drift_and_no_change() -> None:
    """Times of coarse clocks: the order in time is the side, so that nothing tells a drift from a change."""
    times = (0.0,) * 5, (1.0,) * 5
    slower = Sides((1.0, 1.01, 0.99, 1.005, 0.995), (2.0, 2.02, 1.98, 2.01, 1.99), times=times)
    assert judged(slower).answer is Answer.UNKNOWN
    assert "drift" in judged(slower).why


def judged(sides: Sides) -> Evidence:
    return judge_family([sides])[0]


@given(values, values)
def test_the_permutation_test_looks_at_every_division_of_the_runs(
    old: tuple[float, ...], new: tuple[float, ...]
) -> None:
    """By enumeration: twice the share of divisions whose difference is as far off on the rarer side."""
    logs = np.log(np.array(new + old))
    chosen = [set(one) for one in combinations(range(len(logs)), len(new))]
    found = [
        np.mean([logs[i] for i in one]) - np.mean([logs[i] for i in range(len(logs)) if i not in one]) for one in chosen
    ]
    seen, slack = found[0], 1e-9
    above, below = (np.mean([sign * one >= sign * seen - slack for one in found]) for sign in (1, -1))
    assert permutation_p(Sides(old, new)) == pytest.approx(min(1.0, 2 * min(above, below)), abs=1e-6)


@given(values, values, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_welchs(old: tuple[float, ...], new: tuple[float, ...], confidence: float) -> None:
    """By the textbook's formula, with the t distribution integrated numerically."""
    one, other = np.log(old), np.log(new)
    parts = [side.var(ddof=1) / len(side) for side in (one, other)]
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (one, other), strict=True))
    ends = interval(Sides(old, new), confidence)
    assert ends is not None
    middle = other.mean() - one.mean()
    assert sum(ends) / 2 == pytest.approx(middle, abs=1e-9)
    half = (ends[1] - ends[0]) / 2 / error
    assert _inside(half, freedom) == pytest.approx(confidence, abs=2e-4)


def _inside(half: float, freedom: float) -> float:
    """The probability that Student's t lies within ``half`` of 0, by Simpson's rule."""
    points = np.linspace(0, half, 20_001)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(scale - (freedom + 1) / 2 * np.log1p(points**2 / freedom))
    weights = np.ones_like(points)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(2 * (density * weights).sum() * (points[1] / 3))


@given(values, values)
def test_swapping_the_sides_only_turns_the_sign(old: tuple[float, ...], new: tuple[float, ...]) -> None:
    one, other = judged(Sides(old, new)), judged(Sides(new, old))
    assert one.difference == pytest.approx(-other.difference)
    assert one.answer is other.answer
    assert one.p == pytest.approx(other.p)


@given(values, values, st.floats(0.01, 100))
def test_the_unit_does_not_matter(old: tuple[float, ...], new: tuple[float, ...], factor: float) -> None:
    one = judged(Sides(old, new))
    other = judged(Sides(tuple(factor * v for v in old), tuple(factor * v for v in new)))
    assert one.p == pytest.approx(other.p, rel=1e-3)
    assert one.low == pytest.approx(other.low, abs=1e-6)


@pytest.mark.parametrize(("kind", "least"), [("normal", 0.94), ("skewed", 0.93), ("heavy", 0.93)])
def test_ninety_five_of_a_hundred_intervals_hold_the_true_change(kind: str, least: float) -> None:
    rng = np.random.default_rng(3)
    draw = {
        "normal": lambda: rng.normal(0, 0.05, 5),
        "skewed": lambda: 0.05 * (rng.gamma(4.0, 1.0, 5) - 4.0),
        "heavy": lambda: 0.05 * rng.standard_t(3, 5),
    }[kind]
    held = []
    for _ in range(800):
        ends = interval(Sides(tuple(np.exp(draw())), tuple(1.1 * np.exp(draw()))))
        assert ends is not None
        held.append(ends[0] <= math.log(1.1) <= ends[1])
    assert least <= np.mean(held) <= 0.99


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holms_correction_rejects_as_the_step_by_step_procedure(found: list[float]) -> None:
    """The procedure of 1979: while the smallest p that is left is at most level / how many are left, reject it."""
    corrected = holm(found)
    for level in (0.01, 0.05, 0.3):
        left = sorted(found)
        while left and left[0] <= level / len(left):
            left.pop(0)
        rejected = len(found) - len(left)
        # An equality at the limit may be rounded either way.
        clear = all(abs(one * n - level) > 1e-9 for one in found for n in range(1, len(found) + 1))
        if clear:
            assert sum(one is not None and one <= level for one in corrected) == rejected


def test_values_that_are_not_known_do_not_count_among_the_tests() -> None:
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]


def test_a_slowdown_beyond_the_scatter_of_five_runs_is_real() -> None:
    slower = Sides(EVEN.baseline, tuple(1.1 * value for value in EVEN.run))
    found = judged(slower)
    assert found.answer is Answer.REAL
    assert found.p_permutation == pytest.approx(2 / 252)
    assert found.low is not None
    assert found.high is not None
    assert math.log(1.08) < found.low < math.log(1.1) < found.high < math.log(1.12)


def test_no_change_is_within_the_noise_and_the_smallest_that_would_be_found_is_named() -> None:
    found = judged(EVEN)
    assert found.answer is Answer.NOISE
    assert found.smallest is not None
    shifted = Sides(EVEN.baseline, tuple(v * math.exp(1.5 * found.smallest) for v in EVEN.run))
    assert judged(shifted).answer is Answer.REAL


def test_equal_values_are_the_same() -> None:
    assert judged(Sides((0.0,) * 5, (0.0,) * 5)).answer is Answer.SAME
    assert judged(Sides((7.0,), (7.0,))).answer is Answer.SAME


def test_counters_that_never_vary_and_changed_are_real() -> None:
    assert judged(Sides((219.0,) * 5, (220.0,) * 5)).answer is Answer.REAL


@pytest.mark.parametrize("runs", [3, 4])
def test_with_fewer_runs_even_a_doubling_cannot_be_told(runs: int) -> None:
    doubled = Sides(EVEN.baseline[:runs], tuple(2 * value for value in EVEN.run[:runs]))
    assert not enough_runs(doubled)
    assert judged(doubled).answer is Answer.UNKNOWN
    assert judged(doubled).smallest is None


def test_one_run_on_each_side_can_only_be_within_the_noise_of_a_run() -> None:
    assert judged(Sides((100.0,), (101.0,), within=0.02)).answer is Answer.NOISE
    assert judged(Sides((100.0,), (130.0,), within=0.02)).answer is Answer.UNKNOWN
    assert judged(Sides((100.0,), (101.0,))).answer is Answer.UNKNOWN


def test_one_new_run_against_many_of_the_baseline_is_never_real_but_shows() -> None:
    """Its own scatter is not known, and 1 of 6 divisions is no evidence."""
    found = judged(Sides(EVEN.baseline, (20.0,)))
    assert found.answer is Answer.UNKNOWN
    assert judged(Sides(EVEN.baseline, (10.04,))).answer is Answer.NOISE


def test_one_run_is_never_real_even_against_hundreds() -> None:
    many = tuple(10 + 0.001 * (place % 7) for place in range(250))
    assert judged(Sides(many, (20.0,))).answer is Answer.UNKNOWN


def test_an_outlier_makes_no_difference_real() -> None:
    assert judged(Sides(EVEN.baseline, (*EVEN.run[:4], 40.0))).answer is Answer.NOISE


def test_two_runs_that_happen_to_be_among_the_fast_ones_are_no_evidence() -> None:
    """The t test alone would be sure (p = 0.0005), but one run in seven of the other side is as fast."""
    usual = (1.085, 1.086, 1.058, 1.02, 1.06, 1.025, 1.052, 1.051, 1.036, 1.079)
    usual += (1.059, 1.074, 0.975, 1.066, 1.073, 1.052, 1.079, 1.023, 1.043, 1.123)
    found = judged(Sides((1.013, 1.004), usual))
    assert found.p is not None
    assert found.p < 0.001
    assert enough_runs(Sides((1.013, 1.004), usual))
    assert found.answer is Answer.NOISE


def test_of_twenty_metrics_one_must_differ_more_than_if_it_were_alone() -> None:
    slower = Sides((0.98, 1.0, 1.02, 0.99, 1.01), (1.035, 1.055, 1.075, 1.045, 1.065))
    assert judged(slower).answer is Answer.REAL
    among = judge_family([slower, *([EVEN] * 19)])
    assert among[0].answer is Answer.NOISE
    assert among[0].p == judged(slower).p


def test_the_noise_within_a_run_is_enough_for_nothing_if_three_runs_show_the_noise_between_them() -> None:
    scattered = Sides((100.0, 80.0, 120.0), (130.0, 95.0, 150.0), within=1e-6)
    assert judged(scattered).answer is Answer.NOISE


DRIFTING = tuple(100.0 * 1.02**place for place in range(10))
"""A machine that grows slower by 2 % with each run, whichever build runs."""
WOBBLE = (1.0, 1.004, 0.997, 1.002, 0.999, 1.003, 0.996, 1.001, 1.002, 0.998)


def test_a_drift_of_the_machine_is_not_taken_for_a_change_of_the_build() -> None:
    drifting = tuple(value * one for value, one in zip(DRIFTING, WOBBLE, strict=True))
    times = tuple(map(float, range(10)))
    first = Sides(drifting[:5], drifting[5:], times=(times[:5], times[5:]))
    assert apart(first)
    assert judged(first).answer is Answer.UNKNOWN
    turns = Sides(drifting[::2], drifting[1::2], times=(times[::2], times[1::2]))
    assert not apart(turns)
    assert judged(turns).answer is Answer.NOISE
    # The planted mistake: without times, the drift is called a change.
    assert judged(Sides(drifting[:5], drifting[5:])).answer is Answer.REAL


def test_a_step_between_sides_that_differ_in_time_is_still_found() -> None:
    times = tuple(map(float, range(10)))
    stepped = Sides(WOBBLE[:5], tuple(1.1 * one for one in WOBBLE[5:]), times=(times[:5], times[5:]))
    assert judged(stepped).answer is Answer.REAL
