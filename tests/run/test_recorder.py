"""The recorder keeps entries in order, passes each on once, and gives one history for the same entries."""

import pytest
from run_fixtures import entries

from harness.history import Ended, Entry, History, Noted, Outcome, Scraped, Sent
from harness.run.recorder import Recorder
from harness.scenario import Request


def test_entries_are_kept_in_order_and_passed_on_but_not_those_of_the_beginning() -> None:
    kept: list[Entry] = []
    record = Recorder(kept.append, entries=entries()[:2])
    for entry in entries()[2:]:
        record(entry)
    assert record.history.entries == entries()
    assert tuple(kept) == entries()[2:]


def test_the_history_is_the_same_object_until_the_next_entry() -> None:
    """What is derived from a history is remembered by its identity."""
    record = Recorder(entries=entries())
    before = record.history
    assert record.history is before
    record(Noted(9.0, "later"))
    assert record.history is not before
    assert record.history == History((*entries(), Noted(9.0, "later")))


def test_an_operation_without_an_end_is_info() -> None:
    sent = Sent(1.0, Request("a", (1,)), "s", "p", 1.0)
    (operation,) = History((sent,)).operations()
    assert operation.sent is sent
    assert operation.outcome is Outcome.INFO
    assert operation.ended.at == 1.0


def test_entries_of_one_kind_come_in_order_whether_or_not_they_belong_to_operations() -> None:
    history = History(entries())
    for kind in (Sent, Ended, Scraped, Noted):
        assert list(history.of(kind)) == [entry for entry in entries() if isinstance(entry, kind)]


@pytest.mark.parametrize("cut", range(len(entries()) + 1))
def test_a_history_that_is_followed_by_later_entries_is_the_history_of_all_of_them(cut: int) -> None:
    every = entries()
    history, whole = History(every[:cut]).followed_by(every[cut:]), History(every)
    assert history == whole
    assert history.operations() == whole.operations()
    assert list(history.of(Scraped)) == list(whole.of(Scraped))


def test_operations_that_have_ended_stay_the_same_objects_and_others_get_their_ends() -> None:
    first = [Sent(1.0, Request("a", (1,)), "s", "p", 1.0), Ended(2.0, "a", Outcome.OK)]
    later = [Sent(3.0, Request("b", (1,)), "s", "p", 3.0)]
    record = Recorder(entries=first)
    (before,) = record.history.operations()
    record(later[0])
    assert record.history.operations()[0] is before
    assert record.history.operations()[1].outcome is Outcome.INFO
    record(Ended(4.0, "b", Outcome.OK))
    assert [one.outcome for one in record.history.operations()] == [Outcome.OK, Outcome.OK]
