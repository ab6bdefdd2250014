"""Reports of several workers are handed on in the order of time, once each."""

from hypothesis import given
from hypothesis import strategies as st

from harness.fleet.merging import InOrder

times = st.lists(st.integers(0, 50), max_size=12).map(sorted)


@given(st.lists(times, min_size=1, max_size=4), st.data())
def test_reports_come_out_in_order_whatever_the_order_of_batches(streams: list[list[int]], data: st.DataObject) -> None:
    merged: InOrder[tuple[int, int]] = InOrder(str(n) for n in range(len(streams)))
    left = {n: list(stream) for n, stream in enumerate(streams)}
    out: list[tuple[int, int]] = []
    while left:
        n = data.draw(st.sampled_from(sorted(left)))
        size = data.draw(st.integers(min(1, len(left[n])), len(left[n])))
        batch, left[n] = left[n][:size], left[n][size:]
        # Everything up to the next report has been reported.
        until = left[n][0] - 0.5 if left[n] else 99
        merged.add(str(n), [(at, (at, n)) for at in batch], until)
        if not left[n]:
            del left[n]
            merged.close(str(n))
        out += merged.ready()
    assert [at for at, _ in out] == sorted(at for stream in streams for at in stream)
    for n, stream in enumerate(streams):
        assert [at for at, worker in out if worker == n] == stream


def test_nothing_is_handed_on_before_every_worker_has_reported_that_far() -> None:
    merged: InOrder[str] = InOrder(["a", "b"])
    merged.add("a", [(1.0, "sent"), (5.0, "late")], 6.0)
    assert list(merged.ready()) == []
    merged.add("b", [], 3.0)
    assert list(merged.ready()) == ["sent"]
    merged.close("b")
    assert list(merged.ready()) == ["late"]


def test_equal_times_keep_their_order() -> None:
    merged: InOrder[str] = InOrder(["a"])
    merged.add("a", [(1.0, "sent"), (1.0, "ended")], 1.0)
    assert list(merged.ready()) == ["sent", "ended"]


def test_what_a_lost_worker_reported_is_handed_on_at_once_with_what_was_before_it() -> None:
    merged: InOrder[str] = InOrder(["lost", "other"])
    merged.add("lost", [(1.0, "first"), (5.0, "last")], 6.0)
    merged.add("other", [(4.0, "between"), (8.0, "after")], 0.5)
    assert list(merged.lose("lost")) == ["first", "between", "last"]
    assert list(merged.ready()) == []
    merged.add("other", [(4.5, "late")], 9.0)
    assert list(merged.ready()) == ["late", "after"]


def test_a_worker_that_is_lost_without_a_report_holds_nobody_up() -> None:
    merged: InOrder[str] = InOrder(["lost", "other"])
    merged.add("other", [(4.0, "sent")], 5.0)
    assert list(merged.lose("lost")) == []
    assert list(merged.ready()) == ["sent"]
