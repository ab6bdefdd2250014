"""What samples say in which many outputs are damaged, and prompts that are noisier than others."""

import math
from collections.abc import Collection

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import (
    TOKENS,
    Damage,
    Errors,
    Floats,
    Readings,
    conditioned,
    gaussian,
    operations,
    quantised,
    read,
    run,
)

from harness.history import Entry, History
from harness.scenario import Condition, Route
from harness.verdict import Verdict
from harness.verify.judging import outputs, wrong_outputs
from harness.verify.judging.averages import ByOutput, Kind, Usual, comparable
from harness.verify.judging.floor import own_noise
from harness.verify.judging.forcing import Forced

COUNT = 100
KINDS: dict[str, Errors] = {
    "float32": gaussian(1e-5),
    "bfloat16": quantised(0.0625),
    "ill-conditioned": conditioned(0.01),
}


def some(tenths: int) -> set[str]:
    return {f"load-{number}" for number in range(COUNT) if number % 10 < tenths}


def grossly(damaged: Collection[str]) -> Damage:
    def change(name: str, readings: Readings) -> None:
        if name in damaged:
            # Every other token is 3 nats less probable than it was served.
            readings.forced[::2] -= 3.0

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tenths", [1, 3])
def test_of_outputs_of_which_many_are_grossly_damaged_exactly_these_are_named(kind: str, tenths: int) -> None:
    for seed in range(2):
        history = run(KINDS[kind], seed=seed, outputs=COUNT, damage=grossly(some(tenths)))
        assert set(wrong_outputs(history)) == some(tenths)
        assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID


def moved(by: float, damaged: Collection[str] | None = None) -> Damage:
    def change(name: str, readings: Readings) -> None:
        if damaged is None or name in damaged:
            readings.served -= by
            readings.rival -= by

    return change


def test_if_all_outputs_are_damaged_alike_control_outputs_show_it() -> None:
    check = outputs(DEPLOYMENT, run(gaussian(0.01), outputs=COUNT, damage=moved(0.1)))
    assert check.verdict is Verdict.INVALID
    assert (
        f"{COUNT} of {COUNT} outputs exceed such limits, but only 0 of 32 control outputs do" in check.findings[0].text
    )
    assert {finding.request for finding in check.findings} <= some(10)


def test_a_shift_of_all_outputs_that_control_outputs_have_too_is_noise() -> None:
    def everywhere(rng: np.random.Generator, tokens: int) -> Floats:
        return gaussian(0.01)(rng, tokens) + 0.1

    assert outputs(DEPLOYMENT, run(everywhere, outputs=COUNT)).verdict is Verdict.VALID


NOISY = "noisy"


def with_noisy_prompt(controls_of: str | None) -> History:
    """400 outputs, and one with five times their noise. Two control outputs of a prompt have twice the usual noise."""
    rng = np.random.default_rng(4)
    entries: list[Entry] = [*run(gaussian(0.01), seed=1, outputs=400).entries]
    entries += operations(NOISY, read(rng, gaussian(0.05)), Route.PROXY)
    rng = np.random.default_rng(41)
    for number in range(2 if controls_of else 0):
        readings = read(rng, gaussian(0.02))
        name, fields = f"again-{number}", {"about": controls_of, "condition": Condition.SUSPECT}
        entries += operations(name, readings, Route.DECODE, **fields)
    return History(tuple(entries))


def test_control_outputs_of_its_own_noisy_prompt_acquit_an_output_and_those_of_another_prompt_do_not() -> None:
    for controls_of in (None, "load-3"):
        history = with_noisy_prompt(controls_of)
        assert wrong_outputs(history) == (NOISY,)
        assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID
    history = with_noisy_prompt(NOISY)
    assert wrong_outputs(history) == ()
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID


def constant(drift: float, margin_error: float) -> Forced:
    return Forced(np.zeros(20), np.full(20, drift), np.full(20, margin_error), np.ones(20))


def test_the_noise_of_a_prompt_is_the_root_mean_square_of_its_control_outputs_and_never_less_than_usual() -> None:
    usual = Usual(0.01, 0.02)
    three, four, little, unknown = (constant(0.01 * times, 0.02 * times) for times in (3.0, 4.0, 0.1, math.nan))
    assert own_noise([three], usual) == pytest.approx(3.0)
    assert own_noise([three, four, unknown], usual) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert own_noise([little], usual) == own_noise([unknown], usual) == own_noise([], usual) == 1.0


def test_the_errors_of_each_kind_are_multiples_of_the_usual_ones() -> None:
    nan, usual = math.nan, Usual(0.5, 0.25)
    forced = Forced(np.zeros(3), np.array([1.0, 3.0, nan]), np.array([1.0, nan, 1.0]), np.ones(3))
    assert usual.errors(forced, Kind.DRIFT) == pytest.approx([2.0, 6.0, nan], nan_ok=True)
    # The second token has no margin error, and counts by its drift alone.
    assert usual.errors(forced, Kind.BOTH) == pytest.approx([math.sqrt((4 + 16) / 2), 6.0, nan], nan_ok=True)


VICTIM = {"load-17"}


def text_of(history: History) -> str:
    (finding,) = outputs(DEPLOYMENT, history).findings
    assert finding.request == "load-17"
    return finding.text


def test_the_average_of_log_probabilities_finds_what_coarse_margins_hide() -> None:
    """In a third of the tokens of every output, the second-best one errs by a large step; controls are no better."""
    rng, entries = np.random.default_rng(1), list[Entry]()
    for name, route in (
        *((f"load-{n}", Route.PROXY) for n in range(COUNT)),
        *((f"c{n}", Route.DECODE) for n in range(32)),
    ):
        readings = read(rng, gaussian(0.01))
        readings.rival -= 0.25 * (rng.random(TOKENS) < 1 / 3)
        moved(0.08, VICTIM)(name, readings)
        entries += operations(name, readings, route, about=None if route is Route.PROXY else "load-0")
    assert "its log-probabilities differ" in text_of(History(tuple(entries)))


def test_the_average_of_both_finds_margins_that_err_while_log_probabilities_do_not() -> None:
    def rivals(name: str, readings: Readings) -> None:
        readings.rival -= 0.10 * (name in VICTIM)

    text = text_of(run(gaussian(0.01), outputs=COUNT, damage=rivals))
    assert "its log-probabilities and margins differ" in text


def test_control_outputs_that_are_a_token_shorter_than_the_loads_outputs_still_show_their_noise() -> None:
    controls, served = [np.full(19, 3.0)] * 10, [np.full(20, 1.0)] * 100
    averages, numbers = comparable(ByOutput.of([*controls, *served]), 20, controls=10)
    assert (numbers[:10] == np.arange(10)).all()
    assert averages[:10] == pytest.approx(3.0)


def test_without_control_outputs_the_longest_length_that_enough_outputs_have_is_compared() -> None:
    _, numbers = comparable(ByOutput.of([*[np.ones(19)] * 10, *[np.ones(20)] * 100]), 20)
    assert len(numbers) == 100
