"""Spans of time in lanes."""

from hypothesis import given
from hypothesis import strategies as st

from harness.reports.charts.lanes import lanes

spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda one: (one[0], one[0] + one[1])), max_size=30
)


@given(spans)
def test_no_two_spans_of_a_lane_overlap(given_spans: list[tuple[int, int]]) -> None:
    lane = lanes(given_spans)
    for one, (begin, end) in enumerate(given_spans):
        for other in range(one):
            apart = given_spans[other][1] <= begin or end <= given_spans[other][0]
            assert apart or lane[one] != lane[other]


@given(spans)
def test_there_are_as_many_lanes_as_spans_at_a_time(given_spans: list[tuple[int, int]]) -> None:
    most = max((sum(b <= at < e for b, e in given_spans) for at in range(41)), default=0)
    assert len(set(lanes(given_spans))) == most


def test_the_first_free_lane_is_taken() -> None:
    assert lanes([(0, 2), (0, 5), (1, 3), (2, 4), (5, 6)]) == [0, 1, 2, 0, 0]
