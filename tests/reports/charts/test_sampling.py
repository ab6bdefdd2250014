"""Which requests are drawn."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.reports.charts.sampling import sample, shown_of


@given(st.lists(st.integers(0, 3)), st.integers(0, 50))
def test_the_most_important_are_all_drawn_before_any_less_important_one(ranks: list[int], most: int) -> None:
    chosen = sample(ranks, most).tolist()
    assert len(chosen) == min(most, len(ranks))
    assert chosen == sorted(set(chosen))
    if chosen:
        worst = max(ranks[place] for place in chosen)
        assert {place for place, rank in enumerate(ranks) if rank < worst} <= set(chosen)


def test_of_equals_every_part_of_the_time_is_drawn() -> None:
    chosen = sample([4] * 10_000, 100).tolist()
    assert (chosen[0], chosen[-1]) == (0, 9999)
    assert max(b - a for a, b in pairwise(chosen)) <= 102


def test_it_is_said_how_many_are_shown() -> None:
    assert shown_of(600, 10_000, "requests") == "600 of 10,000 requests"
    assert shown_of(600, 600, "requests") == "all 600 requests"
