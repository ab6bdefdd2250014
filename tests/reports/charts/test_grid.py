"""Counts and quantiles of slices of time, beside plain loops."""

import math
from bisect import bisect_right

import numpy as np
import pytest
from charted_run import BEGIN, One, report_of
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.reports.charts.grid import Grid
from harness.reports.charts.measured_run import measured_run
from harness.reports.charts.throughput import arrived

TIMES = st.floats(0, 100, allow_nan=False)
GRID = Grid(0.5, 201)


@given(end=st.floats(1e-3, 1e6), most=st.integers(1, 300))
def test_slices_reach_the_end_and_are_as_many_as_there_is_room_for(end: float, most: int) -> None:
    grid = Grid.over(end, most)
    assert grid.slices <= most + 1
    assert grid.slices * grid.step >= end * (1 - 1e-12)
    assert grid.step >= 1e-4, "times on charts are rounded to that"
    digit = grid.step / 10 ** math.floor(math.log10(grid.step * (1 + 1e-9)))
    assert round(digit, 6) in (1, 2, 5)


@given(st.lists(TIMES))
def test_each_time_is_counted_in_its_slice(times: list[float]) -> None:
    expected = [0] * GRID.slices
    for at in times:
        expected[int(at // 0.5)] += 1
    assert GRID.count(np.array(times)).tolist() == expected


@given(st.lists(st.tuples(TIMES, st.floats(-1, 20))))
def test_at_each_slice_s_beginning_those_are_in_flight_that_have_begun_and_not_ended(
    each: list[tuple[float, float]],
) -> None:
    begins, ends = np.array([begin for begin, _ in each]), np.array([begin + took for begin, took in each])
    expected = [sum(begin <= at < begin + took for begin, took in each) for at in GRID.begins.tolist()]
    assert GRID.at_work(begins, ends).tolist() == expected


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the two nearest of the sorted values."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = min(int(place), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@given(st.lists(st.tuples(TIMES, st.floats(0, 1e4)), min_size=1))
def test_quantiles_are_those_of_the_slice_alone(each: list[tuple[float, float]]) -> None:
    slices: dict[int, list[float]] = {}
    for at, value in each:
        slices.setdefault(bisect_right(GRID.begins.tolist(), at) - 1, []).append(value)
    found = GRID.quantiles(np.array([at for at, _ in each]), np.array([value for _, value in each]), (0.5, 0.99))
    assert [place for place, _, _ in found] == sorted(slices)
    for place, many, (median, p99) in found:
        assert many == len(slices[place])
        assert median == pytest.approx(quantile(slices[place], 0.5))
        assert p99 == pytest.approx(quantile(slices[place], 0.99))


@settings(max_examples=30)  # each makes a run
@given(st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=6), min_size=1, max_size=8))
def test_tokens_are_counted_when_they_arrive(gaps: list[list[float]]) -> None:
    requests = [One(tokens=tuple(np.cumsum(each).tolist())) for each in gaps]
    run = measured_run(report_of(requests))
    # So wide that no rounding moves a token over its edge: the gaps' sums are no multiples of it.
    grid = Grid(0.7310585786, 60)
    expected = [0] * grid.slices
    for one in requests:
        for at in one.tokens:
            expected[int(((BEGIN + at) - BEGIN) // grid.step)] += 1
    assert arrived(run.arrivals, grid, BEGIN).tolist() == expected


def test_tokens_are_counted_alike_however_many_are_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    run = measured_run(report_of([One(tokens=tuple(np.sort(rng.uniform(0, 40, n + 1)))) for n in range(60)]))
    grid = Grid(0.7310585786, 60)
    whole = arrived(run.arrivals, grid, BEGIN)
    monkeypatch.setattr("harness.reports.charts.throughput._AT_A_TIME", 7)
    assert arrived(run.arrivals, grid, BEGIN).tolist() == whole.tolist()
    assert whole.sum() == sum(range(1, 61))
