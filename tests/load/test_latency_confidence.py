"""Confidence intervals of latencies: their coverage on drawn latencies, and when there are none."""

from collections.abc import Callable

import numpy as np
import pytest

from harness.load.latency.confidence import intervals

MEDIAN, SPREAD = 0.05, 1.0
TRUE_MS = {
    "mean": 1000 * MEDIAN * np.exp(SPREAD**2 / 2),
    "p50": 1000 * MEDIAN,
    "p90": 1000 * MEDIAN * np.exp(1.2815515655 * SPREAD),
}
"""Of the logarithmically normal distribution, by its formulas."""


def independent(rng: np.random.Generator, count: int) -> np.ndarray:
    return MEDIAN * np.exp(SPREAD * rng.normal(size=count))


def correlated(rng: np.random.Generator, count: int) -> np.ndarray:
    """Each request's logarithm has a correlation of 0.5 with the one before it."""
    noise = rng.normal(size=count)
    for index in range(1, count):
        noise[index] = 0.5 * noise[index - 1] + 0.75**0.5 * noise[index]
    return MEDIAN * np.exp(SPREAD * noise)


@pytest.mark.parametrize("draw", [independent, correlated])
@pytest.mark.parametrize("count", [128, 1000])
def test_intervals_hold_the_true_value_about_as_often_as_they_say(
    draw: Callable[[np.random.Generator, int], np.ndarray], count: int
) -> None:
    rng = np.random.default_rng(7)
    runs = [intervals([[one] for one in draw(rng, count)], seed=seed) for seed in range(100)]
    for name, true in TRUE_MS.items():
        held = sum(run[name].low <= true <= run[name].high for run in runs)
        # 95 are promised; of 100 runs, 86 to 100 are within three standard errors of the 88 to 97 that were measured.
        assert 82 <= held <= 100, name


def test_intervals_are_not_needlessly_wide() -> None:
    """The interval of the mean of independent latencies is that of the textbook, within a quarter."""
    drawn = independent(np.random.default_rng(3), 3000)
    found = intervals([[one] for one in drawn])["mean"]
    textbook = 2 * 1.96 * 1000 * drawn.std() / len(drawn) ** 0.5
    assert found.high - found.low == pytest.approx(textbook, rel=0.25)


def test_correlation_widens_intervals() -> None:
    """Latencies of whole groups that are alike tell less than as many independent ones."""
    rng = np.random.default_rng(5)
    together = np.repeat(independent(rng, 50), 20)
    alone = rng.permutation(together)
    wide, narrow = (intervals([[one] for one in values])["mean"] for values in (together, alone))
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("count", "names"), [(99, set()), (100, {"mean", "p50", "p90"}), (999, {"mean", "p50", "p90"})]
)
def test_too_few_latencies_have_no_interval(count: int, names: set[str]) -> None:
    assert set(intervals([[0.1 + one / 1000] for one in range(count)])) == names


def test_a_p99_needs_a_thousand_latencies() -> None:
    assert "p99" in intervals([[0.1 + one / 1000] for one in range(1000)])


def test_latencies_of_one_request_stay_together() -> None:
    """A request's inter-token latencies are one draw: 100 requests of 50 equal latencies are no 5,000 measurements."""
    per_request = independent(np.random.default_rng(9), 100)
    together = intervals([[one] * 50 for one in per_request])["mean"]
    one_each = intervals([[one] for one in per_request])["mean"]
    assert (together.low, together.high) == pytest.approx((one_each.low, one_each.high))


def test_the_same_run_has_the_same_intervals() -> None:
    drawn = [[one] for one in independent(np.random.default_rng(2), 300)]
    assert intervals(drawn) == intervals(drawn)
