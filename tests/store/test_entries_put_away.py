"""Entries whose large fields lie in the journal are the same entries to whoever uses them."""

import copy
import itertools
import pickle
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from forced_histories import gaussian
from forced_histories import run as forced_run
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from run_fixtures import entries

from harness.deferred import kept_with
from harness.errors import HarnessError
from harness.history import Choice, Ended, Entry, History, Outcome, Sent, TokenLogprob
from harness.scenario import Message, Request
from harness.store import JournalWriter, lines_on_disk, read_journal
from harness.store.lines_on_disk import LinesOnDisk
from harness.verify.judging import look_at_outputs

QUIET = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SENT = st.builds(Sent, at=FINITE, intended_at=FINITE)
ENDED = st.builds(Ended, at=FINITE, token_times=st.lists(FINITE, max_size=5).map(tuple))
MANY_DIGITS = re.compile(r"\d{19}")
"""Integers of more than 64 bits are refused in stored files."""
NUMBER = itertools.count()


@pytest.fixture(autouse=True)
def all_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the entries of small journals stay in memory."""
    monkeypatch.setattr(lines_on_disk, "HELD", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the fields that were read from the disk."""
    names: list[str] = []
    read = LinesOnDisk._read

    def counted(lines: LinesOnDisk, offset: int, length: int, name: str) -> object:
        names.append(name)
        return read(lines, offset, length, name)

    monkeypatch.setattr(LinesOnDisk, "_read", counted)
    return iter([names])


def looks(value: object) -> str:
    """A text that, unlike equality, equates NaN with NaN. The sign of 0.0 is ignored."""
    return repr(value).replace("-0.0", "0.0")


def written(directory: Path, recorded: tuple[Entry, ...]) -> Path:
    """A new journal with these entries, which are put away."""
    path = directory / f"{next(NUMBER)}.jsonl"
    with JournalWriter(path, flush_seconds=1000.0) as journal:
        for entry in recorded:
            journal.record(entry)
    return path


def in_memory(entry: Sent | Ended, name: str) -> bool:
    try:
        object.__getattribute__(entry.request if isinstance(entry, Sent) else entry, name)
    except AttributeError:
        return False
    return True


def an_end(number: int = 0) -> Ended:
    rows = (TokenLogprob(5, -0.1, -2.0, 7), None)
    return Ended(
        2.0, f"load-{number}", Outcome.OK, status=200, choices=(Choice((5, 6), "a", logprobs=rows),), token_times=(1.5,)
    )


def a_beginning(number: int = 0) -> Sent:
    return Sent(1.0, Request(f"load-{number}", (1, 2, 3)), "s", "p", 1.0)


@given(recorded=st.lists(SENT | ENDED | st.sampled_from(entries()), max_size=5).map(tuple))
@QUIET
def test_any_entries_are_the_same_when_put_away_and_when_read_back(tmp_path: Path, recorded: tuple[Entry, ...]) -> None:
    before = looks(recorded)
    path = written(tmp_path, recorded)
    assert looks(recorded) == before
    if not MANY_DIGITS.search(before):
        assert looks(tuple(read_journal(path))) == before


@given(recorded=st.lists(SENT | ENDED, min_size=1, max_size=4).map(tuple), data=st.data())
@QUIET
def test_a_journal_that_ends_at_any_byte_is_a_beginning_of_the_history(
    tmp_path: Path, recorded: tuple[Entry, ...], data: st.DataObject
) -> None:
    whole, before = written(tmp_path, recorded).read_bytes(), [looks(entry) for entry in recorded]
    first = whole.index(b"\n") + 1
    length = data.draw(st.integers(first, len(whole)))
    path = tmp_path / f"{next(NUMBER)}.jsonl"
    path.write_bytes(whole[:length])
    assume(not any(map(MANY_DIGITS.search, before)))
    assert [looks(entry) for entry in read_journal(path)] == before[: whole[:length].count(b"\n") - 1]


@pytest.mark.parametrize("kind", get_args(Entry))
def test_every_kind_of_entry_can_be_recorded(tmp_path: Path, kind: type[Entry]) -> None:
    """Also those that have nothing to put away."""
    recorded = tuple(entry for entry in entries() if isinstance(entry, kind))
    assert tuple(read_journal(written(tmp_path, recorded))) == recorded


def test_an_entry_that_was_written_has_its_large_fields_on_disk_alone(tmp_path: Path) -> None:
    sent, ended = a_beginning(), an_end()
    written(tmp_path, (sent, ended))
    assert not in_memory(sent, "prompt")
    assert not in_memory(ended, "choices")
    assert not in_memory(ended, "token_times")
    # Empty fields and what each checker asks for stay.
    assert in_memory(ended, "first_logprobs")
    assert in_memory(ended, "outcome")
    assert (sent, ended) == (a_beginning(), an_end())


def test_the_first_entries_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_on_disk, "HELD", 1000)
    ends = tuple(map(an_end, range(100)))
    written(tmp_path, ends)
    held = [in_memory(ended, "choices") for ended in ends]
    assert held == sorted(held, reverse=True)
    assert 1 < sum(held) < 20


def test_outcomes_times_and_ids_are_read_from_memory(tmp_path: Path, reads: Iterator[list[str]]) -> None:
    """A checker that folds over them does not decode tokens."""
    names = next(reads)
    recorded = tuple(entry for number in range(5) for entry in (a_beginning(number), an_end(number)))
    for operation in History(tuple(read_journal(written(tmp_path, recorded)))).operations():
        assert operation.outcome is Outcome.OK
        assert operation.ended.at > operation.sent.at
        assert operation.request.of_load
        assert operation.ended.usage is None
    assert names == []
    assert [o.prompt_token_ids for o in History(recorded).operations()] == [(1, 2, 3)] * 5
    assert names == ["prompt"] * 5


def test_lengths_are_known_without_reading(tmp_path: Path, reads: Iterator[list[str]]) -> None:
    names = next(reads)
    text = replace(a_beginning(1), request=replace(a_beginning(1).request, prompt="text"))
    ended = replace(an_end(1), prompt_token_ids=(1, 2))
    recorded: tuple[Entry, ...] = (a_beginning(), an_end(), text, ended)
    stored = History(tuple(read_journal(written(tmp_path, recorded)))).operations()
    assert [one.ended.output_tokens for one in stored] == [2, 2]
    assert stored[0].prompt_tokens == 3
    assert names == []
    # How a text was tokenized is known from its end alone.
    assert stored[1].prompt_tokens == 2
    assert [one.prompt_tokens for one in History(recorded).operations()] == [3, 2]


def test_fields_that_are_asked_for_together_are_read_together(tmp_path: Path, reads: Iterator[list[str]]) -> None:
    names, ended = next(reads), replace(an_end(), tokens_per_chunk=(1,))
    written(tmp_path, (ended,))
    assert (ended.token_times, ended.tokens_per_chunk) == ((1.5,), (1,))
    assert len(names) == 1


def test_what_is_computed_of_an_entry_is_kept_with_it(tmp_path: Path, reads: Iterator[list[str]]) -> None:
    names, ended = next(reads), an_end()
    written(tmp_path, (ended,))
    assert [kept_with(ended, lambda one: one.choices[0].text) for _ in range(3)] == ["a"] * 3
    assert names == ["choices"]
    assert ended == an_end()


def test_a_field_that_is_asked_for_again_at_once_is_read_once(tmp_path: Path, reads: Iterator[list[str]]) -> None:
    names, ended = next(reads), an_end()
    written(tmp_path, (ended,))
    assert ended.choices[0].token_ids == (5, 6)
    assert ended.choices[0].text == "a"
    assert names == ["choices"]


def test_fields_that_were_read_are_forgotten_when_many_others_have_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_on_disk, "LATELY", 1000)
    ends = tuple(map(an_end, range(100)))
    written(tmp_path, ends)
    lines = ends[0]._source.lines  # type: ignore[attr-defined] # of an entry that was put away
    for ended in ends * 2:
        assert ended.choices[0].token_ids == (5, 6)
        assert 1 <= len(lines._lately) < 10


def test_it_can_be_copied_pickled_changed_and_compared(tmp_path: Path) -> None:
    sent, ended = a_beginning(), an_end()
    written(tmp_path, (sent, ended))
    for one, whole in ((sent, a_beginning()), (ended, an_end())):
        assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one == whole  # noqa: S301 - own
        assert hash(one) == hash(whole)
        assert type(one) is type(whole)
    assert replace(ended, at=9.0) == replace(an_end(), at=9.0)
    assert replace(sent.request, route=sent.request.route) == a_beginning().request


def test_it_has_no_other_attributes(tmp_path: Path) -> None:
    ended = an_end()
    written(tmp_path, (ended,))
    for one in (ended, an_end()):
        with pytest.raises(AttributeError, match="'Ended' object has no attribute 'mood'"):
            _ = one.mood  # type: ignore[attr-defined] # that is what is tested


@pytest.mark.parametrize(
    "prompt",
    ["text", (Message("user", "hi"),), (), (7,), (-1, 7), (1 << 18, 5), (2**63 - 1, 5), (0, (1 << 18) - 1)],
    ids=["text", "chat", "none", "one-token", "negative", "large", "largest", "ends-of-the-vocabulary"],
)
def test_each_form_of_prompt_is_read_back(tmp_path: Path, prompt: str | tuple[Message, ...] | tuple[int, ...]) -> None:
    sent = Sent(1.0, Request("a", prompt), "s", "p", 1.0)
    written(tmp_path, (sent,))
    assert sent.request.prompt == prompt


def test_prompts_that_are_read_back_share_their_numbers(tmp_path: Path) -> None:
    first, second = a_beginning(1), a_beginning(2)
    prompt = (5000, 6000, 5000)
    recorded = tuple(replace(one, request=replace(one.request, prompt=prompt)) for one in (first, second))
    written(tmp_path, recorded)
    tokens = [token for one in recorded for token in (*one.request.prompt,)]
    assert len({*map(id, tokens)}) == 2


def test_a_request_that_is_recorded_twice_is_read_from_either_journal(tmp_path: Path) -> None:
    sent = a_beginning()
    for _ in range(2):
        assert tuple(read_journal(written(tmp_path, (sent,)))) == (a_beginning(),)
    assert sent == a_beginning()


def test_a_journal_that_was_removed_is_still_read(tmp_path: Path) -> None:
    """For example after a temporary directory has gone."""
    ended = an_end()
    written(tmp_path, (ended,)).unlink()
    assert ended == an_end()


def test_a_journal_that_was_changed_is_an_error(tmp_path: Path) -> None:
    ended = an_end()
    written(tmp_path, (ended,)).write_bytes(b"")
    with pytest.raises(HarnessError, match="cannot be read again"):
        _ = ended.choices


def test_what_is_stored_without_credentials_keeps_them_in_memory(tmp_path: Path) -> None:
    """Redaction concerns the file; the run in progress needs its URLs."""
    ended = replace(an_end(), decode_server="http://user:secret@host")
    path = tmp_path / "h.jsonl"
    with JournalWriter(path, redacted=lambda entry: replace(entry, decode_server="http://host")) as journal:  # type: ignore[type-var] # an Ended
        journal.record(ended)
    assert b"secret" not in path.read_bytes()
    assert ended == replace(an_end(), decode_server="http://user:secret@host")


def test_threads_read_while_the_writer_puts_away(tmp_path: Path) -> None:
    ends = tuple(map(an_end, range(300)))
    seen: list[bool] = []

    def read() -> None:
        seen.extend(ended.choices == an_end().choices and ended.token_times == (1.5,) for ended in ends * 3)

    threads = [threading.Thread(target=read) for _ in range(3)]
    with JournalWriter(tmp_path / "h.jsonl", flush_seconds=0.0001) as journal:
        for thread in threads:
            thread.start()
        for ended in ends:
            journal.record(ended)
        for thread in threads:
            thread.join()
    assert len(seen) == 2700
    assert all(seen)


def test_an_entry_that_cannot_be_written_is_an_error_for_whoever_records_next(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "h.jsonl", flush_seconds=1000.0)
    journal.record(replace(an_end(), cause=object()))  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(HarnessError, match="could not be written"):
        journal.flush()
    with pytest.raises(HarnessError):
        journal.close()


def test_outputs_are_judged_as_from_memory(tmp_path: Path) -> None:
    """With 128 operations of 20 tokens and as many teacher forcings, each read several times."""
    expected = look_at_outputs(forced_run(gaussian(1e-5), seed=3))
    history = forced_run(gaussian(1e-5), seed=3)
    stored = History(tuple(read_journal(written(tmp_path, history.entries))))
    assert look_at_outputs(stored).compared == look_at_outputs(history).compared == expected.compared
