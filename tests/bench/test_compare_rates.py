"""Rates of false alarms and of detection on drawn noise: twenty repeats, and the two tables."""

import numpy as np
import pytest

from bench.compare_rates import KINDS, PRIMARY, TWENTY, Rates, Setting, draw_family, main, measure


@pytest.mark.slow
@pytest.mark.parametrize("turns", [True, False], ids=["in turns", "one side first"])
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_repeats_of_the_same_build_give_at_most_one_alarm(kind: str, turns: bool) -> None:
    assert sum(measure(Setting(kind, turns), TWENTY, seed=11).alarms) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("turns", [True, False], ids=["in turns", "one side first"])
def test_a_slowdown_of_ten_percent_is_found_between_five_runs_that_scatter_by_one(turns: bool) -> None:
    assert measure(Setting("normal", turns, scatter=0.01, slowdown=0.1), TWENTY, seed=11).found >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_drawn_in_the_order_of_time(kind: str) -> None:
    """With turns, the sides' times alternate; without, one side is older."""
    for turns in (True, False):
        setting = Setting(kind, turns)
        (sides,) = draw_family(np.random.default_rng(0), setting, np.zeros(10), 1)
        first, second = sides.times
        assert (max(first) < min(second)) is not turns


def test_what_metrics_share_is_shared() -> None:
    shared = np.linspace(-50, 50, 10)
    members = list(draw_family(np.random.default_rng(0), Setting("normal", turns=False), shared, PRIMARY))
    assert len(members) == PRIMARY
    assert all(max(one.baseline) < min(one.run) for one in members)


def test_the_chance_of_several_alarms_in_twenty_is_that_of_independent_repeats() -> None:
    """One repeat in ten has an alarm: 1 - 0.9^20 - 20 * 0.1 * 0.9^19."""
    rates = Rates(Setting("normal", turns=True), (1, *([0] * 9)), 0.0, 0.0)
    assert rates.more_than_one_in_twenty == pytest.approx(1 - 0.9**20 - 2 * 0.9**19, abs=0.015)


@pytest.mark.slow
def test_both_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repeats", "2", "--jobs", "1", "--allowed", "1"]) == 0
    assert sum(line.startswith("|---|") for line in capsys.readouterr().out.splitlines()) == 2
