"""Where warm-up ends."""

import numpy as np
import pytest

from harness.load.latency.steady import steady_state


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, count)


@pytest.mark.parametrize("warm", [30, 60, 150])
def test_a_slow_beginning_is_warm_up(warm: int) -> None:
    level = np.concatenate([np.full(warm, 3.0), np.full(500 - warm, 1.0)])
    found = [steady_state(level + noise(500, seed)) for seed in range(20)]
    assert all(one is not None and one.first >= warm for one in found)
    assert np.median([one.first for one in found if one]) <= warm + 5


def test_a_beginning_that_falls_to_the_level() -> None:
    latencies = np.maximum(1.0, np.linspace(3, -7, 500)) + noise(500)
    found = steady_state(latencies)
    assert found is not None
    assert 70 <= found.first <= 130


def test_an_even_load_has_little_warm_up() -> None:
    firsts = [found.first if (found := steady_state(1 + noise(500, seed))) else 500 for seed in range(50)]
    assert np.median(firsts) <= 25


@pytest.mark.parametrize("slope", [2.0, -0.8])
def test_a_drift_through_the_whole_load_is_not_steady(slope: float) -> None:
    assert steady_state(np.linspace(1, 1 + slope, 500) + noise(500) * 0.1) is None


def test_a_step_behind_the_middle_is_not_steady() -> None:
    assert steady_state(np.concatenate([np.full(300, 3.0), np.full(200, 1.0)]) + noise(500)) is None


def test_too_few_requests() -> None:
    assert steady_state([1.0] * 99) is None
    assert steady_state([1.0] * 100) is not None


def test_the_definition() -> None:
    """The same by the definition of MSER-5, for each number of batches left out."""
    latencies = np.concatenate([np.linspace(4, 1, 40), np.ones(163)]) + noise(203, 4)
    batches = latencies[:200].reshape(40, 5).mean(axis=1)
    errors = [batches[d:].var() / (40 - d) for d in range(20)]
    found = steady_state(latencies)
    assert found is not None
    assert found.first == 5 * int(np.argmin(errors))
