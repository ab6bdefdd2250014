"""What follows from the load alone is computed once, however many requests verification adds."""

from dataclasses import replace

from harness.history import Ended, History, Noted, Outcome, Sent
from harness.scenario import Purpose, Request, Sampling
from harness.verify.judging.load_part import load_of


def entries(count: int) -> list[Sent | Ended]:
    sent = [Sent(float(n), Request(f"r{n}", (n,), Sampling(1)), "s", "p", float(n)) for n in range(count)]
    return [*sent, *(Ended(n + 0.5, f"r{n}", Outcome.OK) for n in range(count))]


def test_the_load_is_the_same_object_while_only_other_requests_are_added() -> None:
    load = entries(5)
    before = load_of(History(tuple(load)))
    probe = Sent(9.0, Request("probe", (1,), Sampling(1), purpose=Purpose.PROBE), "v", "probe", 9.0)
    after = load_of(History((*load, probe, Ended(9.5, "probe", Outcome.OK), Noted(9.6, "a note"))))
    assert after is before
    assert [one.request.request_id for one in after] == [f"r{n}" for n in range(5)]


def test_another_end_in_the_middle_is_another_load() -> None:
    load = entries(5)
    before = load_of(History(tuple(load)))
    load[7] = replace(load[7], outcome=Outcome.INFO)
    after = load_of(History(tuple(load)))
    assert after is not before
    assert [one.outcome for one in after].count(Outcome.INFO) == 1


def test_a_longer_load_is_another_one() -> None:
    assert len(load_of(History(tuple(entries(5))))) == 5
    assert len(load_of(History(tuple(entries(6))))) == 6
