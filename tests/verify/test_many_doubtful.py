"""Damage that moves all outputs shows against control outputs; what moves one a little is doubtful."""

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, run
from hypothesis import given
from hypothesis import strategies as st

from harness.history import History
from harness.verdict import Verdict
from harness.verify.judging import outputs
from harness.verify.judging.many_doubtful import SIGNIFICANCE, exceedance_probability


def shifted(every: int, by: float) -> "object":
    """Damage that moves every token a little, in one of ``every`` outputs."""

    def damage(name: str, readings: Readings) -> None:
        if int(name.rpartition("-")[2]) % every == 0:
            readings.served += by * np.where(np.arange(len(readings.served)) % 2, 1.0, -1.0)

    return damage


def test_damage_that_moves_every_output_makes_the_run_invalid() -> None:
    """The outputs of the load do not differ from each other, but all of them from control outputs, which are clean."""
    check = outputs(DEPLOYMENT, run(gaussian(0.01), outputs=400, controls=64, damage=shifted(1, 0.06)))
    assert check.verdict is Verdict.INVALID
    assert "of 64 control outputs do: too many to be noise" in check.summary


def test_outputs_that_move_together_are_wrong_though_each_could_be_noise() -> None:
    names = {one.request for one in outputs(DEPLOYMENT, moved(every=6)).findings}
    assert names == {f"load-{number}" for number in range(0, 64, 6)}


def moved(every: int) -> History:
    """One output of ``every`` is off by as much as one output of 64 may be in a run of nothing but noise."""
    return run(gaussian(0.01), outputs=64, controls=64, damage=shifted(every, 0.036))


def test_one_output_that_is_off_by_a_little_is_doubtful() -> None:
    check = outputs(DEPLOYMENT, moved(every=64))
    assert check.verdict is Verdict.VALID
    assert any("doubtful" in note for note in check.notes)


def test_exceedances_are_noise_if_control_outputs_have_as_many() -> None:
    assert exceedance_probability(20, 100, 20, 100) > 0.5
    assert exceedance_probability(20, 100, 0, 100) < SIGNIFICANCE


def test_few_control_outputs_prove_little() -> None:
    assert exceedance_probability(8, 64, 0, 32) > SIGNIFICANCE
    assert exceedance_probability(8, 64, 0, 192) < SIGNIFICANCE


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 6), st.integers(1, 12))
def test_the_chance_is_that_of_drawing_without_putting_back(
    exceeding: int, more: int, of_controls: int, rest: int
) -> None:
    """The expected probability is that of drawing one by one from a small urn, added up over every order."""
    outputs_, controls = exceeding + more, of_controls + rest
    chances = {0: 1.0}
    for taken in range(exceeding + of_controls):
        after: dict[int, float] = {}
        for own, chance in chances.items():
            left, of = outputs_ - own, outputs_ + controls - taken
            after[own + 1] = after.get(own + 1, 0.0) + chance * left / of
            after[own] = after.get(own, 0.0) + chance * (of - left) / of
        chances = after
    expected = sum(chance for own, chance in chances.items() if own >= exceeding)
    assert exceedance_probability(exceeding, outputs_, of_controls, controls) == pytest.approx(expected, abs=1e-9)
