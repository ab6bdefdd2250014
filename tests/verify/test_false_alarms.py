"""The limits of noise on other kinds of noise than they were designed for: no clean run is invalid; damage is found."""

import numpy as np
import pytest

from bench.false_alarms import KINDS, Size, judge_run
from harness.verify.judging.averages import ByOutput, average, compared_length

RUNS = 60
SIZES = [
    pytest.param(size, marks=marks, id=str(size))
    for size, marks in (
        (Size(16, 32, 60), ()),
        (Size(64, 80, 1), pytest.mark.slow),
        (Size(64, 32, 20), pytest.mark.slow),
    )
]


@pytest.mark.parametrize("size", SIZES)
# One kind has a heavier tail than the rule allows for.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cauchy-clipped"])
def test_a_run_of_nothing_but_noise_is_not_invalid(kind: str, size: Size) -> None:
    rng = np.random.default_rng(7)
    runs = RUNS if size.requests < 64 else RUNS // 3
    assert not any(judge_run(rng, KINDS[kind], size).accused for _ in range(runs))


def test_heavy_tails_often_exceed_the_near_limit() -> None:
    rng = np.random.default_rng(7)
    assert sum(judge_run(rng, KINDS["student-3"], Size(64, 32, 20)).near for _ in range(RUNS)) >= 3


@pytest.mark.parametrize(
    "kind",
    [
        "gaussian",
        "flips",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("exponential", "steps-16", "dependent")),
    ],
)
def test_only_the_output_that_was_made_from_other_kv_is_found_wrong(kind: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        assert judge_run(rng, KINDS[kind], Size(64, 32, 20), damaged=1).accused == {0}


def test_the_largest_values_do_not_move_an_average() -> None:
    assert average(np.array([0.1, 9.0, 0.1, np.nan])) == pytest.approx(0.1)
    assert average(np.array([*[0.1] * 30, 9.0, 7.0, 8.0])) == pytest.approx(0.1)
    assert np.isnan(average(np.array([0.1, 9.0, np.nan])))


def test_the_compared_length_is_at_most_the_length_of_the_output() -> None:
    assert [compared_length(count) for count in (1, 2, 3, 7, 20, 23, 60, 100)] == [None, None, 3, 6, 20, 20, 48, 96]


def test_averages_of_many_outputs_equal_the_average_of_each_truncated_output() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=count) for count in (5, 2, 8, 4)]
    arrays[2][1] = np.nan
    together = ByOutput.of(arrays)
    truncated = [array[np.isfinite(array)][:4] for array in arrays if np.isfinite(array).sum() >= 4]
    averages, numbers = together.averages(4)
    assert averages == pytest.approx([average(one) for one in truncated])
    assert numbers.tolist() == [0, 2, 3]
    assert together.whole_averages() == pytest.approx([average(one) for one in arrays], nan_ok=True)
