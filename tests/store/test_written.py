"""Ends of operations that another process has written as lines of the journal."""

import json
import math
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness.deferred import tokens_put_away
from harness.history import Choice, Ended, Ending, Entry, Outcome, TokenLogprob, Usage
from harness.store import written
from harness.store.entries import decode_entry, encode_line
from harness.store.journal import JournalWriter, read_journal
from harness.store.lines_on_disk import LARGE
from harness.store.rundir import RunStore

ROW = TokenLogprob(7, -0.5, -1.5, 8)
WHOLE = Ended(
    2.5,
    "r-1",
    Outcome.OK,
    "",
    200,
    (Choice((7, 8), " yes", "length", (ROW, None)),),
    Usage(3, 2, 1),
    (1, 2, 3),
    None,
    (1.0, 2.0),
    (1, 1),
    prefill_server="http://p:1",
    first_logprobs=((7, -0.5), (8, -1.5)),
    proxy_seconds=0.25,
)
REFUSED = Ended(1.0, "r-2", Outcome.FAIL, "HTTP 400: \ud800 no", 400, ending=Ending.REFUSED)
NO_TEXT = Ended(1.0, "r-3", Outcome.INFO, "cut", 200, (Choice((), "\udfff"),), ending=Ending.CUT)
NAN = Ended(1.0, "r-4", Outcome.OK, "", 200, (Choice((7,), "", "stop", (TokenLogprob(7, math.nan),)),))


def sent_over(ended: Ended) -> Ended:
    packed = pickle.dumps(written.taken_apart(ended))
    return written.put_together(pickle.loads(packed))  # noqa: S301 - packed here


@pytest.mark.parametrize("ended", [WHOLE, REFUSED, NO_TEXT, NAN])
def test_an_end_is_the_same_in_the_other_process_and_in_the_journal(tmp_path: Path, ended: Ended) -> None:
    line = encode_line(ended)
    with JournalWriter(tmp_path / "journal") as journal:
        journal.record(sent_over(ended))
    assert (tmp_path / "journal").read_bytes().splitlines()[1] == line
    (stored,) = read_journal(tmp_path / "journal")
    assert encode_line(stored) == line
    assert encode_line(sent_over(ended)) == line
    if ended is not NAN:
        assert sent_over(ended) == ended == stored


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Lines in memory that were read."""
    lines: list[bytes] = []

    def reading(line: bytes) -> Entry:
        lines.append(line)
        return decode_entry(line)

    monkeypatch.setattr(written, "decode_entry", reading)
    return lines


def test_what_is_asked_of_every_operation_is_known_without_reading_its_line(read: list[bytes]) -> None:
    end = sent_over(WHOLE)
    small = [item.name for item in fields(Ended) if item.name not in LARGE]
    assert [getattr(end, name) for name in small] == [getattr(WHOLE, name) for name in small]
    assert (end.output_tokens, tokens_put_away(end), end.prompt_logprobs) == (2, 2, None)
    assert read == []
    assert (end.choices, end.token_times) == (WHOLE.choices, WHOLE.token_times)
    assert len(read) == 1, "one line, once for all of its fields"
    assert written.written_line(end) is None


def test_entries_that_the_journal_has_are_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[bytes]
) -> None:
    monkeypatch.setattr("harness.store.lines_on_disk.HELD", 0)
    end = sent_over(WHOLE)
    with RunStore.create(tmp_path) as store:
        store.record(end)
    assert written.written_line(end) is None, "the line is not kept in memory, too"
    assert end == WHOLE
    assert read == [], "neither to store it nor to put it away"


def test_a_credential_in_a_line_that_is_written_already_is_not_stored(tmp_path: Path) -> None:
    secret: Any = {"cause": "cut: http://user:hunter2@d:1", "outcome": Outcome.INFO}
    whole = {item.name: getattr(WHOLE, item.name) for item in fields(Ended)}
    with RunStore.create(tmp_path) as store:
        store.record(sent_over(Ended(**(whole | secret))))
    line = (store.path / "history.jsonl").read_text().splitlines()[1]
    assert "hunter2" not in line
    assert json.loads(line)["choices"][0]["token_ids"] == [7, 8]


def test_the_first_token_s_time_is_known_without_reading_the_line() -> None:
    """Who watches a run asks for it with each request, and the line must go to the journal as it is."""
    whole = Ended(2.0, "a", Outcome.OK, choices=(Choice((1, 2)),), token_times=(1.5, 1.9), tokens_per_chunk=(1, 1))
    end = written.put_together(written.taken_apart(whole))
    assert whole.first_token_at == end.first_token_at == 1.5
    assert written.written_line(end) is not None
    assert written.put_together(written.taken_apart(Ended(2.0, "a", Outcome.OK))).first_token_at is None
