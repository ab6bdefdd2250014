"""Schedules of open loops: their distributions against theory, and that the same seed gives the same times."""

import math

import numpy as np
import pytest

from harness.cli.options import parse
from harness.errors import UsageError
from harness.loads import Ramp, RandomLoad, Stages, Steady
from harness.loads.arrival import Arrival
from harness.scenario import Request

MANY = 20_000


def times(arrival: Arrival, number: int = MANY, seed: int = 5) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.asarray(arrival.times(number, np.random.default_rng(seed)))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("rate", [0.5, 40.0])
def test_intervals_are_gamma_distributed(rate: float, burstiness: float) -> None:
    """Gamma of shape b and mean 1/rate: variance 1/(b rate^2), third central moment 2/(b^2 rate^3)."""
    intervals = np.diff(times(Steady(rate, burstiness)), prepend=0.0)
    assert intervals.min() >= 0
    assert intervals.mean() == pytest.approx(1 / rate, rel=0.005)
    assert intervals.var() == pytest.approx(1 / (burstiness * rate**2), rel=0.08)
    third = ((intervals - intervals.mean()) ** 3).mean()
    assert third == pytest.approx(2 / (burstiness**2 * rate**3), rel=0.25)
    neighbours = np.corrcoef(intervals[:-1], intervals[1:])[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(MANY), "intervals do not depend on each other"


def test_burstiness_1_is_a_poisson_process() -> None:
    """Of exponential intervals, e^-x are longer than x times the mean."""
    intervals = np.diff(times(Steady(10.0)), prepend=0.0)
    for longer in (0.1, 0.5, 1.0, 3.0):
        assert np.mean(intervals > longer / 10) == pytest.approx(math.exp(-longer), abs=4 * 0.5 / math.sqrt(MANY))


def test_infinite_burstiness_makes_equal_intervals() -> None:
    assert times(Steady(4.0, math.inf), 8) == pytest.approx(np.arange(1, 9) / 4)


@pytest.mark.parametrize("burstiness", [0.1, 1.0, math.inf])
@pytest.mark.parametrize("number", [1, 7, 64])
def test_a_steady_load_has_exactly_the_rate_that_was_asked_for(number: int, burstiness: float) -> None:
    for seed in range(5):
        assert times(Steady(8.0, burstiness), number, seed)[-1] == pytest.approx(number / 8)


def test_a_ramps_rates_go_from_the_first_to_the_last_request() -> None:
    linear = np.diff(times(Ramp("linear", 2.0, 10.0, math.inf), 9), prepend=0.0)
    assert 1 / linear == pytest.approx(np.arange(2.0, 11.0))
    exponential = np.diff(times(Ramp("exponential", 1.0, 16.0, math.inf), 5), prepend=0.0)
    assert 1 / exponential == pytest.approx([1, 2, 4, 8, 16])
    falling = np.diff(times(Ramp("linear", 10.0, 2.0, math.inf), 9), prepend=0.0)
    assert 1 / falling == pytest.approx(np.arange(10.0, 1.0, -1.0))
    assert times(Ramp("linear", 3.0, 5.0, math.inf), 1) == pytest.approx([1 / 3])


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_a_random_ramp_follows_its_rates(burstiness: float) -> None:
    intervals = np.diff(times(Ramp("linear", 10.0, 30.0, burstiness)), prepend=0.0)
    for part, rate in ((intervals[: MANY // 10], 11.0), (intervals[-MANY // 10 :], 29.0)):
        assert 1 / part.mean() == pytest.approx(rate, rel=0.1)


def test_stages_have_their_rates_for_their_times() -> None:
    stages = Stages(((5.0, 30.0), (0.0, 10.0), (20.0, 15.0)))
    assert stages.size == 450
    found = times(stages, stages.size)
    assert np.all(np.diff(found) >= 0)
    assert [np.sum((found > low) & (found <= high + 1e-9)) for low, high in ((0, 30), (30, 40), (40, 55))] == [
        150,
        0,
        300,
    ]
    assert found[-1] == pytest.approx(55)


def requests(number: int) -> list[Request]:
    return [Request(f"r{n}", (n,)) for n in range(number)]


@pytest.mark.parametrize("arrival", [Steady(3.0), Ramp("linear", 1.0, 9.0), Stages(((4.0, 5.0),))])
def test_the_same_seed_gives_the_same_times_and_another_seed_others(arrival: Arrival) -> None:
    def due(seed: int) -> tuple[float, ...]:
        return RandomLoad(seed=seed, concurrency=None, arrival=arrival).phase("load", requests(20)).due

    assert due(1) == due(1)
    assert due(1) != due(2)
    assert len(due(1)) == 20


def test_an_open_loop_without_a_limit_never_waits_for_an_answer() -> None:
    load = RandomLoad(concurrency=None, arrival=Steady(3.0))
    assert load.phase("load", requests(77)).concurrency == 77
    assert RandomLoad(concurrency=4, arrival=Steady(3.0)).phase("load", requests(77)).concurrency == 4
    assert RandomLoad(concurrency=4).phase("load", requests(77)).due == ()


@pytest.mark.parametrize(
    ("load", "flags", "limit"),
    [
        (RandomLoad(), "", 32),
        (RandomLoad(arrival=Steady(3.0)), "--request-rate 3", 77),
        (RandomLoad(arrival=Steady(3.0), concurrency=4), "--request-rate 3 --concurrency 4", 4),
    ],
)
def test_requests_in_flight_have_the_same_limit_as_on_the_command_line(
    load: RandomLoad, flags: str, limit: int
) -> None:
    assert load == parse(flags.split()).load
    assert load.phase("load", requests(77)).concurrency == limit


def test_too_few_requests_for_the_stages_are_refused() -> None:
    load = RandomLoad(arrival=Stages(((5.0, 3.0),)))
    with pytest.raises(UsageError, match=r"ask for 15 requests .* has 14"):
        load.phase("load", requests(14))


def test_sessions_are_groups_of_requests_and_times_are_of_sessions() -> None:
    load = RandomLoad(turns=3, think_time=(1.0, 2.0), arrival=Steady(2.0, math.inf))
    phase = load.phase("load", list(load.in_sessions(requests(8))))
    assert [one.continues for one in phase.requests] == [None, "r0", "r1", None, "r3", "r4", None, "r6"]
    assert set(phase.think_times) == {"r1", "r2", "r4", "r5", "r7"}
    assert all(1 <= seconds <= 2 for seconds in phase.think_times.values())
    assert len(set(phase.think_times.values())) == 5
    assert phase.due == (0.5, 1.0, 1.5)
    again = load.phase("load", list(load.in_sessions(requests(8))))
    assert again == phase
