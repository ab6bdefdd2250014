"""Shares and their intervals, against formulas in closed form and the interval of the self-test."""

import pytest

from bench.alarms import Alarms, clopper_pearson, exceeding, total
from harness.selftest import interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (1, 7), (7, 7), (3, 200), (60, 90)])
def test_the_interval_of_few_trials_is_that_of_the_self_test(successes: int, trials: int) -> None:
    assert clopper_pearson(successes, trials) == pytest.approx(interval.clopper_pearson(successes, trials), abs=1e-9)


@pytest.mark.parametrize("trials", [1, 300, 100_000])
def test_ends_that_have_a_closed_form(trials: int) -> None:
    """Without a success all trials fail: (1 - p)^n = 2.5 % at the upper end. With successes alone it is reversed."""
    assert clopper_pearson(0, trials) == pytest.approx((0.0, 1 - 0.025 ** (1 / trials)), abs=1e-9)
    assert clopper_pearson(trials, trials) == pytest.approx((0.025 ** (1 / trials), 1.0), abs=1e-9)


def test_no_trials_say_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_runs_that_were_not_judged_are_no_runs_without_an_alarm() -> None:
    both = total([Alarms(1, 10, 90), Alarms(2, 20, 0)])
    assert both == Alarms(3, 30, 90)
    assert both.interval == clopper_pearson(3, 30)


def test_a_rate_is_exceeded_only_beyond_chance() -> None:
    """With one alarm expected, 4 or more come in 2 of 100 cases, and 3 or more in 8 of 100."""
    assert not Alarms(3, 1000).exceeds_rate()
    assert Alarms(4, 1000).exceeds_rate()
    assert not Alarms(4, 1000).exceeds_rate(compared=10)


def test_a_part_is_named_although_the_whole_keeps_the_rate() -> None:
    assert [line.partition(":")[0] for line in exceeding({"a": Alarms(8, 1000), "b": Alarms(0, 9000)})] == ["a"]


def test_the_whole_is_named_although_each_part_might_be_chance() -> None:
    parts = {str(part): Alarms(3, 1000) for part in range(5)}
    assert [line.partition(":")[0] for line in exceeding(parts)] == ["all together"]
