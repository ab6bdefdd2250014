"""Outputs that are doubtful each by itself are wrong where so many of them are no noise."""

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, run
from hypothesis import given
from hypothesis import strategies as st

from harness.verdict import Verdict
from harness.verify.judging import outputs
from harness.verify.judging.many import SHARE, by_chance


def shifted(every: int, by: float) -> "object":
    """Damage that moves every token of one output in so many a little."""

    def damage(name: str, readings: Readings) -> None:
        if int(name.rpartition("-")[2]) % every == 0:
            readings.served += by * np.where(np.arange(len(readings.served)) % 2, 1.0, -1.0)

    return damage


def test_many_outputs_that_are_off_by_a_little_make_the_run_invalid() -> None:
    """Each is within what a heavy tail could bring; together with clean control outputs they are not."""
    check = outputs(DEPLOYMENT, run(gaussian(0.01), outputs=64, controls=64, damage=shifted(3, 0.04)))
    assert check.verdict is Verdict.INVALID
    assert "of 64 control outputs do: so many are no noise" in check.summary


def test_one_such_output_is_doubtful_and_no_more() -> None:
    check = outputs(DEPLOYMENT, run(gaussian(0.01), outputs=64, controls=64, damage=shifted(64, 0.047)))
    assert check.verdict is Verdict.VALID
    assert any("doubtful" in note for note in check.notes)


def test_where_control_outputs_are_beyond_as_often_it_is_noise() -> None:
    assert by_chance(20, 100, 20, 100) > 0.5
    assert by_chance(20, 100, 0, 100) < SHARE


def test_few_control_outputs_prove_little() -> None:
    assert by_chance(8, 64, 0, 32) > SHARE
    assert by_chance(8, 64, 0, 192) < SHARE


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 6), st.integers(1, 12))
def test_the_chance_is_that_of_drawing_without_putting_back(beyond: int, more: int, theirs: int, rest: int) -> None:
    """Beside the same draw, simulated by counting every order of a small urn's draws one after another."""
    outputs_, controls = beyond + more, theirs + rest
    chances = {0: 1.0}
    for taken in range(beyond + theirs):
        after: dict[int, float] = {}
        for own, chance in chances.items():
            left, of = outputs_ - own, outputs_ + controls - taken
            after[own + 1] = after.get(own + 1, 0.0) + chance * left / of
            after[own] = after.get(own, 0.0) + chance * (of - left) / of
        chances = after
    expected = sum(chance for own, chance in chances.items() if own >= beyond)
    assert by_chance(beyond, outputs_, theirs, controls) == pytest.approx(expected, abs=1e-9)
