"""Histograms of latencies: exact merging, resolution, and the form that HdrHistogram's tools read."""

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from harness.load.latency.histogram import Histogram

latencies = st.lists(st.floats(0, 5000, allow_nan=False), max_size=60)


@given(latencies)
def test_recording_together_is_recording_one_by_one(seconds: list[float]) -> None:
    one_by_one = HdrHistogram(1, 3_600_000_000, 3)
    for one in seconds:
        one_by_one.record_value(min(max(round(one * 1e6), 1), 3_600_000_000))
    assert Histogram(seconds).encoded() == one_by_one.encode().decode()


@given(latencies, latencies, latencies)
def test_merged_in_any_order_is_the_histogram_of_all(one: list[float], two: list[float], three: list[float]) -> None:
    merged = Histogram(three)
    merged.merge(Histogram(one))
    merged.merge(Histogram(two))
    assert merged == Histogram([*one, *two, *three])
    assert merged.total == len(one) + len(two) + len(three)


@given(latencies)
def test_text_and_back(seconds: list[float]) -> None:
    assert Histogram.decoded(Histogram(seconds).encoded()) == Histogram(seconds)


@given(st.lists(st.floats(1e-3, 3000), min_size=1, max_size=60), st.floats(1, 100))
def test_a_percentile_is_within_a_thousandth(seconds: list[float], percentile: float) -> None:
    # The library rounds the number of latencies to the nearest whole one.
    rank = max(1, int(len(seconds) * percentile / 100 + 0.5))
    exact = sorted(seconds)[rank - 1] * 1000
    assert Histogram(seconds).percentile(percentile) == pytest.approx(exact, rel=1e-3)


def test_another_latency_is_another_histogram() -> None:
    assert Histogram([0.1, 0.2]) != Histogram([0.1, 0.3])


def test_values_out_of_range_count_as_the_nearest() -> None:
    assert Histogram([0.0, 1e9]) == Histogram([1e-6, 3600.0])
