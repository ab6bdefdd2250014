"""What follows from the load alone is computed once, however many requests verification adds."""

from dataclasses import replace

from harness.history import Ended, History, Noted, Outcome, Sent
from harness.memo import once
from harness.scenario import Purpose, Request, Sampling
from harness.verify.judging.load_part import Load, asked_of, load_of


def entries(count: int) -> list[Sent | Ended]:
    sent = [Sent(float(n), Request(f"r{n}", (n,), Sampling(1)), "s", "p", float(n)) for n in range(count)]
    return [*sent, *(Ended(n + 0.5, f"r{n}", Outcome.OK) for n in range(count))]


def test_what_follows_from_the_load_is_computed_once_while_only_other_requests_are_added() -> None:
    counted: list[int] = []

    @once
    def count(load: Load) -> int:
        counted.append(len(load))
        return len(load)

    history = History(tuple(entries(5)))
    assert count(load_of(history)) == 5
    probe = Sent(9.0, Request("probe", (1,), Sampling(1), purpose=Purpose.PROBE), "v", "probe", 9.0)
    history = history.followed_by([probe, Ended(9.5, "probe", Outcome.OK), Noted(9.6, "a note")])
    assert count(load_of(history)) == 5
    assert [one.request.request_id for one in asked_of(history)] == ["probe"]
    assert counted == [5]
    history = history.followed_by(replace(one, at=one.at + 20) for one in entries(7)[5:7])
    assert count(load_of(history)) == 7
    assert counted == [5, 7]


def test_another_end_in_the_middle_is_another_load() -> None:
    load = entries(5)
    before = load_of(History(tuple(load)))
    load[7] = replace(load[7], outcome=Outcome.INFO)
    after = load_of(History(tuple(load)))
    assert after != before
    assert [one.outcome for one in after].count(Outcome.INFO) == 1


def test_a_longer_load_is_another_one() -> None:
    assert len(load_of(History(tuple(entries(5))))) == 5
    assert len(load_of(History(tuple(entries(6))))) == 6
