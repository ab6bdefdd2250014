"""Every part of a phase is a phase, and together the parts are the phase."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.fleet.split import split
from harness.scenario import Phase, Request


@st.composite
def phases(draw: st.DrawFn) -> Phase:
    size = draw(st.integers(0, 30))
    requests: list[Request] = []
    for number in range(size):
        turns = [None, *(one.request_id for one in requests), "of-an-earlier-phase"]
        requests.append(Request(f"own-{number}", (number,), continues=draw(st.sampled_from(turns))))
    background = tuple(Request(f"beside-{number}", (number,)) for number in range(draw(st.integers(0, 12))))
    own = {one.request_id for one in requests}
    later = [one.request_id for one in requests if one.continues in own]
    think = dict.fromkeys(later, 1.0) if draw(st.booleans()) else {}
    scheduled = size - len(think)
    due = sorted(draw(st.lists(st.floats(0, 99), min_size=scheduled, max_size=scheduled)))
    return Phase(
        "p",
        tuple(requests),
        draw(st.integers(1, 20)),
        background=background,
        background_concurrency=draw(st.integers(1, 6)) if background else 0,
        due=tuple(due) if draw(st.booleans()) else (),
        think_times=think,
        seconds=draw(st.sampled_from([None, 5.0])),
    )


WORKERS = st.integers(1, 8)


@given(phases(), WORKERS)
def test_every_request_is_in_one_part_and_in_the_phases_order(phase: Phase, workers: int) -> None:
    parts = split(phase, workers)
    place = {one.request_id: n for n, one in enumerate((*phase.requests, *phase.background))}
    for kind in ("requests", "background"):
        found = Counter(one.request_id for part in parts for one in getattr(part, kind))
        assert found == Counter(one.request_id for one in getattr(phase, kind))
        for part in parts:
            assert all(place[a.request_id] < place[b.request_id] for a, b in pairwise(getattr(part, kind)))


@given(phases(), WORKERS)
def test_requests_in_flight_add_up_and_no_part_is_without_a_slot(phase: Phase, workers: int) -> None:
    parts = split(phase, workers)
    assert 1 <= len(parts) <= workers
    assert sum(part.concurrency for part in parts) == phase.concurrency
    assert min(part.concurrency for part in parts) >= 1
    assert max(part.concurrency for part in parts) - min(part.concurrency for part in parts) <= 1
    assert sum(part.background_concurrency for part in parts) == phase.background_concurrency
    assert all(part.background_concurrency >= 1 for part in parts if part.background)


@given(phases(), WORKERS)
def test_conversations_stay_together(phase: Phase, workers: int) -> None:
    where = {one.request_id: n for n, part in enumerate(split(phase, workers)) for one in part.requests}
    assert all(where[one.request_id] == where[one.continues] for one in phase.requests if one.continues in where)


@given(phases(), WORKERS)
def test_each_request_keeps_its_time(phase: Phase, workers: int) -> None:
    def times(one: Phase) -> dict[str, float]:
        first = [request.request_id for request in one.requests if request.request_id not in one.think_times]
        return dict(zip(first, one.due, strict=True)) if one.due else {}

    parts = split(phase, workers)
    assert {name: at for part in parts for name, at in times(part).items()} == times(phase)
    assert {part.seconds for part in parts} == {phase.seconds}


@given(phases())
def test_one_worker_has_the_whole_phase(phase: Phase) -> None:
    assert split(phase, 1) == (phase,)


def test_without_conversations_request_k_is_in_part_k_mod_n() -> None:
    requests = tuple(Request(f"r{n}", (n,)) for n in range(7))
    parts = split(Phase("p", requests, 8), 3)
    assert [[one.request_id for one in part.requests] for part in parts] == [
        ["r0", "r3", "r6"],
        ["r1", "r4"],
        ["r2", "r5"],
    ]
    assert [part.concurrency for part in parts] == [3, 3, 2]
