"""Predictions that are made from a journal while it is written, and what the judge does with them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.made_run import Settings, deployment_of, entries_of
from harness.beside.predicting import predictions_along
from harness.checkers import Predictions, judge, predictions
from harness.errors import UsageError
from harness.facts import Deployment
from harness.history import Ended, Entry, History, PhaseStarted, RunEnded, Scraped, Sent, VerificationPlanned
from harness.oracle import predict
from harness.store import encode_entry, follow_journal
from harness.store.readers import MalformedError

SETTINGS = Settings(60, concurrency=8, phase=30, blocks=160, chunks=120)
DEPLOYMENT = deployment_of(SETTINGS)
ENTRIES = tuple(entries_of(SETTINGS))
HEADER = b'{"kind": "journal", "format": 1}\n'


def planned_after_the_load(entries: tuple[Entry, ...] = ENTRIES) -> tuple[Entry, ...]:
    """The entries with the one that is recorded when the load has ended."""
    last = max(n for n, entry in enumerate(entries) if isinstance(entry, Scraped))
    return (*entries[: last + 1], VerificationPlanned(entries[last].at, 6, 1.0), *entries[last + 1 :])


def judged(source: Callable[[], Predictions | None] | None = None, deployment: Deployment = DEPLOYMENT) -> str:
    return repr(judge(deployment, History(planned_after_the_load()), predictions=source))


def predicted_nowhere(*_: object) -> None:
    raise AssertionError("the judge predicted the counters itself")


@pytest.fixture
def made() -> Predictions:
    (made,) = predictions_along(DEPLOYMENT, planned_after_the_load())
    return made


def test_the_judge_uses_predictions_that_fit_with_the_same_result(
    made: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = judged()
    monkeypatch.setattr(predictions, "predict", predicted_nowhere)
    assert judged(lambda: made) == alone


def test_without_predictions_the_judge_makes_them() -> None:
    assert judged(lambda: None) == judged()


def test_predictions_from_other_operations_are_not_used(made: Predictions) -> None:
    wrong = replace(made, operations=b"of another run", expected={})
    assert judged(lambda: wrong) == judged()


def test_predictions_from_other_facts_are_not_used(made: Predictions) -> None:
    smaller = DEPLOYMENT.with_servers(num_blocks=80)
    assert judged(lambda: made, smaller) == judged(None, smaller) != judged()


@pytest.mark.parametrize("changed", ["at", "request_id", "outcome", "output_tokens"])
def test_a_difference_in_any_operation_is_noticed(changed: str) -> None:
    history = History(ENTRIES)
    one, *rest = predictions.predictable(history)
    ended = one.ended
    other = {
        "at": replace(ended, at=ended.at + 1e-6),
        "request_id": ended,
        "outcome": replace(ended, outcome=type(ended.outcome).INFO),
        "output_tokens": replace(ended, choices=()),
    }[changed]
    sent = one.sent
    if changed == "request_id":
        sent = replace(sent, request=replace(sent.request, request_id="another"))
    changed_one = replace(one, sent=sent, ended=other)
    assert predictions.digest_of([changed_one, *rest]) != predictions.digest_of([one, *rest])


def test_predictions_are_made_when_the_load_has_ended() -> None:
    entries = iter(planned_after_the_load())
    next(predictions_along(DEPLOYMENT, entries))
    assert any(isinstance(entry, Sent) for entry in entries), "the requests that verify the answers were waited for"


def test_predictions_are_made_again_if_a_counted_phase_followed(made: Predictions) -> None:
    start = max(n for n, entry in enumerate(ENTRIES) if isinstance(entry, Scraped) and entry.label == "before")
    first_phase = ENTRIES[: start - 1]
    early = (*first_phase, VerificationPlanned(1.0, 1, 1.0), *ENTRIES[start - 1 :])
    first, last = predictions_along(DEPLOYMENT, early)
    assert first.operations != last.operations
    assert (last.operations, last.expected) == (made.operations, made.expected)


def predicted_at_once(*_: object) -> None:
    raise AssertionError("operations were not added as they ended")


def test_each_operation_is_added_when_it_has_ended(made: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "predict", predicted_at_once)
    (along,) = predictions_along(DEPLOYMENT, planned_after_the_load())
    assert along == made


def without_ends(*wanted: str) -> tuple[Entry, ...]:
    """The entries without the ends of some requests."""
    return tuple(one for one in planned_after_the_load() if not (isinstance(one, Ended) and one.request_id in wanted))


def backwards() -> tuple[Entry, ...]:
    """The entries with the requests of the first phase in another order than that in which they were sent."""
    entries = list(planned_after_the_load())
    places = [n for n, one in enumerate(entries) if isinstance(one, Sent)][: SETTINGS.phase]
    for place, entry in zip(places, [entries[place] for place in reversed(places)], strict=True):
        entries[place] = entry
    return tuple(entries)


def not_counted_at_last() -> tuple[Entry, ...]:
    """The entries without the readings of the last phase."""
    last = [one.phase for one in ENTRIES if isinstance(one, Scraped)][-1]
    return tuple(one for one in planned_after_the_load() if not (isinstance(one, Scraped) and one.phase == last))


@pytest.mark.parametrize(
    "entries",
    [
        without_ends("load-0000000"),
        without_ends("load-0000007", "load-0000030", "load-0000059"),
        backwards(),
        not_counted_at_last(),
    ],
)
def test_predictions_are_those_of_the_whole_history(entries: tuple[Entry, ...]) -> None:
    (made,) = predictions_along(DEPLOYMENT, entries)
    operations = predictions.predictable(History(entries))
    assert made.operations == predictions.digest_of(operations)
    assert made.expected == predict(DEPLOYMENT, operations)


def test_a_run_without_verification_is_predicted_at_its_end() -> None:
    (made,) = predictions_along(DEPLOYMENT, ENTRIES)
    assert made.fit(DEPLOYMENT, predictions.predictable(History(ENTRIES)))


class Growing:
    """A journal that grows by the next piece whenever its reader finds nothing new."""

    def __init__(self, path: Path, *pieces: bytes) -> None:
        self.path, self._pieces = path, list(pieces)
        path.write_bytes(b"")

    def grow(self) -> None:
        if not self._pieces:
            raise EOFError
        with self.path.open("ab") as file:
            file.write(self._pieces.pop(0))

    def entries(self) -> Iterator[Entry]:
        try:
            yield from follow_journal(self.path, self.grow)
        except EOFError:
            return


FIRST, SECOND = PhaseStarted(1.0, "load", "a"), RunEnded(2.0)
LINES = b"".join(encode_entry(one).encode() + b"\n" for one in (FIRST, SECOND))


@pytest.mark.parametrize("cut", range(0, len(HEADER + LINES), 7))
def test_a_line_that_is_cut_is_read_when_the_rest_of_it_was_written(cut: int, tmp_path: Path) -> None:
    whole = HEADER + LINES
    assert list(Growing(tmp_path / "journal", whole[:cut], whole[cut:]).entries()) == [FIRST, SECOND]


def test_an_incomplete_line_is_no_entry(tmp_path: Path) -> None:
    assert list(Growing(tmp_path / "journal", HEADER, LINES[:-1]).entries()) == [FIRST]


def test_a_line_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        list(Growing(tmp_path / "journal", HEADER, b"{}\n").entries())


def test_another_file_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a history"):
        list(Growing(tmp_path / "journal", b"{}\n").entries())


def test_what_is_read_along_gives_the_same_predictions(tmp_path: Path, made: Predictions) -> None:
    content = HEADER + b"".join(encode_entry(entry).encode() + b"\n" for entry in planned_after_the_load())
    pieces = [content[start : start + 10_000] for start in range(0, len(content), 10_000)]
    (along,) = predictions_along(DEPLOYMENT, Growing(tmp_path / "journal", *pieces).entries())
    assert along == made


def test_a_journal_that_is_cut_in_its_last_line_gives_no_predictions(tmp_path: Path) -> None:
    content = HEADER + b"".join(encode_entry(entry).encode() + b"\n" for entry in ENTRIES)
    assert list(predictions_along(DEPLOYMENT, Growing(tmp_path / "journal", content[:-10]).entries())) == []
    assert list(predictions_along(DEPLOYMENT, Growing(tmp_path / "journal", content).entries()))
