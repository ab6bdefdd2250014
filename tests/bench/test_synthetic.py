"""Kinds of noise show what their names say."""

import numpy as np
import pytest

from bench.synthetic import KINDS, draw_outputs

READINGS, OUTPUTS, TOKENS = SHAPE = (4, 4000, 20)


def drawn(kind: str) -> np.ndarray:
    return KINDS[kind](np.random.default_rng(0), SHAPE)


def spread(errors: np.ndarray) -> np.ndarray:
    """The root mean square error of each output."""
    return np.sqrt((errors**2).mean(axis=(0, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "tokens"), [(1, 1), (3, 2), (5, 7)])
def test_every_kind_has_every_shape(kind: str, outputs: int, tokens: int) -> None:
    errors = KINDS[kind](np.random.default_rng(0), (4, outputs, tokens))
    assert errors.shape == (4, outputs, tokens)
    assert np.isfinite(errors).all()


def test_the_clipped_tail_is_heavy_and_ends_at_five_nats() -> None:
    """Student's t of 2 degrees exceeds x with probability 1/2 - x / (2 sqrt(2 + x²)) to one side."""
    errors = np.abs(KINDS["cauchy-clipped"](np.random.default_rng(0), (4, 400, 1000)))
    assert errors.max() == 5.0
    expected = 1 - 10 / np.sqrt(2 + 10**2)
    assert (errors > 10 * 0.01).mean() == pytest.approx(expected, rel=0.05)


def test_bursts_are_three_tokens_in_a_row_in_one_output_of_twenty() -> None:
    loud = np.sqrt((drawn("bursts") ** 2).mean(axis=0)) > 0.03
    struck = loud[loud.any(axis=1)]
    assert len(struck) / OUTPUTS == pytest.approx(0.05, abs=0.01)
    places = [np.flatnonzero(row) for row in struck]
    assert all(row[-1] - row[0] <= 2 for row in places)
    assert np.mean([len(row) for row in places]) > 2.5
    assert {int(row[0]) for row in places if len(row) == 3} == set(range(TOKENS - 2))


def test_drifting_noise_grows_by_a_factor_of_three() -> None:
    noise = spread(drawn("drifting"))
    assert noise[-100:].mean() / noise[:100].mean() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(("kind", "share", "factor"), [("two-servers", 0.5, 3.0), ("rare-prompts", 0.005, 5.0)])
def test_some_outputs_are_louder_as_a_whole(kind: str, share: float, factor: float) -> None:
    noise = spread(drawn(kind))
    loud = noise > 0.02
    assert loud.mean() == pytest.approx(share, abs=3 * np.sqrt(share / OUTPUTS))
    assert noise[loud].mean() / noise[~loud].mean() == pytest.approx(factor, rel=0.05)


def test_regret_never_exceeds_the_error_of_its_margin() -> None:
    """A greedy server serves the token that leads."""
    outputs = draw_outputs(np.random.default_rng(0), KINDS["student-3"], 500, 20)
    assert sum(one.regret.any() for one in outputs) > 10
    assert all((one.regret <= one.margin_error + 1e-12).all() for one in outputs)
