"""Runs drawn from recorded outputs: what they hold, and how many of them alarm, found by another road."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from recorded_runs import accuse_loud, planted

from bench.alarms import clopper_pearson
from bench.resampled import ARMS, REQUESTS, Pool, Size, count_alarms, draw_run
from harness.verify.judging.forcing import Forced


def outputs(number: int, drift: float = 0.25) -> list[Forced]:
    """Outputs of two tokens, of which the second has twice the drift."""
    return [
        Forced(np.array([0.0, 0.1]), np.array([drift, 2 * drift]), np.array([0.2, 0.3]), np.array([1.0, -0.1]))
        for _ in range(number)
    ]


def test_whole_outputs_are_drawn_and_none_is_made_up() -> None:
    pool = Pool(outputs(5), outputs(9))
    controls, served = draw_run(np.random.default_rng(0), pool, Size(200, 50))
    assert {id(one) for one in controls} == {id(one) for one in pool.controls}
    assert {id(one) for one in served} == {id(one) for one in pool.served}
    assert (len(controls), len(served)) == (50, 200)


def test_controls_drawn_from_the_load_are_not_in_the_load() -> None:
    pool = Pool((), outputs(300), controls_from_served=True)
    controls, served = draw_run(np.random.default_rng(0), pool, Size(600, 64))
    assert (len(controls), len(served)) == (64, 600)
    assert not {id(one) for one in controls} & {id(one) for one in served}
    assert {id(one) for one in (*controls, *served)} <= {id(one) for one in pool.served}


def test_jitter_scales_each_output_as_a_whole() -> None:
    pool = Pool(outputs(5), outputs(9), jitter=0.1)
    controls, served = draw_run(np.random.default_rng(0), pool, Size(2000, 192))
    factors = np.array([one.drift[0] / 0.25 for one in (*controls, *served)])
    assert len(set(factors)) == 2192
    assert (np.mean(np.log(factors)), np.std(np.log(factors))) == pytest.approx((0.0, 0.1), abs=0.01)
    for one, factor in zip((*controls, *served), factors, strict=True):
        arrays = np.array([one.regret, one.drift, one.margin_error, one.margin]) / factor
        assert arrays == pytest.approx(np.array([[0, 0.1], [0.25, 0.5], [0.2, 0.3], [1, -0.1]]))


def test_runs_are_dealt_out_to_all_sizes_in_turn() -> None:
    drawn: Counter[tuple[int, int]] = Counter()

    def judge(controls: Sequence[Forced], served: Sequence[Forced]) -> str:
        drawn[len(served), len(controls)] += 1
        return "not judged"

    by_size = count_alarms(judge, Pool(outputs(5), outputs(9)), 41, [0])
    assert set(drawn) == {(requests, arm) for requests in REQUESTS for arm in ARMS}
    assert sorted(drawn.values()) == [2] * 19 + [3]
    assert {(size.requests, size.controls): one.unjudged for size, one in by_size.items()} == dict(drawn)
    assert sum(one.judged for one in by_size.values()) == 0


def test_as_many_runs_alarm_as_hold_the_one_loud_output() -> None:
    """A run of R draws from n outputs misses one of them with probability (1 - 1/n)^R."""
    pool = Pool(outputs(5), [*outputs(299), *outputs(1, drift=2.0)])
    by_size = count_alarms(planted(accuse_loud), pool, 800, [0])
    for requests in REQUESTS:
        alarms = sum(one.alarms for size, one in by_size.items() if size.requests == requests)
        low, high = clopper_pearson(alarms, 160, 0.999)
        assert low <= 1 - (1 - 1 / 300) ** requests <= high


def test_the_same_seed_draws_the_same_runs_and_another_seed_others() -> None:
    pool = Pool(outputs(5), [*outputs(299), *outputs(1, drift=2.0)])
    counts = [count_alarms(planted(accuse_loud), pool, 100, [seed]) for seed in (1, 1, 2)]
    assert counts[0] == counts[1] != counts[2]
