"""The journal: entries are read back, an incomplete end is dropped, damage is refused, a killed writer loses little."""

import asyncio
import errno
import json
import math
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polling import until
from run_fixtures import STARTED, entries

from harness.errors import HarnessError, UsageError
from harness.facts import Deployment
from harness.history import Ended, Entry, Noted, Outcome, Sample, Scraped, Sent, TokenLogprob
from harness.scenario import Message, Request
from harness.store import JournalWriter, decode_entry, encode_entry, read_journal
from harness.store.codec import decode, dumps
from harness.store.readers import MalformedError

st.register_type_strategy(Sample, st.builds(Sample, st.text(), st.dictionaries(st.text(), st.text()), st.floats()))


def _looks(entry: Entry) -> str:
    """A text that, unlike equality, distinguishes 1 from 1.0 and equates NaN with NaN. The sign of 0.0 is ignored."""
    return repr(entry).replace("-0.0", "0.0")


@pytest.mark.parametrize("kind", get_args(Entry))
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_kind_of_entry_is_read_back_unchanged(kind: type[Entry], data: st.DataObject) -> None:
    entry = data.draw(st.from_type(kind))
    line = encode_entry(entry)
    assert "\n" not in line
    assert _looks(decode_entry(line)) == _looks(entry)


@given(deployment=st.from_type(Deployment))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_deployment_facts_are_read_back_unchanged(deployment: Deployment) -> None:
    assert _looks(decode(Deployment, json.loads(dumps(deployment)))) == _looks(deployment)


@pytest.mark.parametrize(
    "prompt",
    [(1, 2), "text", "", (Message("user", "hi"), Message("assistant", "\ud800 \x00 \u2028"))],
    ids=["ids", "text", "no-text", "chat"],
)
def test_each_form_of_prompt_keeps_its_form(prompt: tuple[int, ...] | str | tuple[Message, ...]) -> None:
    entry = Sent(1.0, Request("a", prompt), "s", "p", 1.0)
    assert decode_entry(encode_entry(entry)) == entry


def test_non_finite_numbers_are_read_back_and_the_line_is_strict_json() -> None:
    samples = (Sample("a", {"le": "+Inf"}, math.inf), Sample("b", {}, math.nan), Sample("c", {}, -math.inf))
    line = encode_entry(Scraped(1.0, "prefill-0", "before", "s", "p", samples))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(line, parse_constant=refuse)
    back = decode_entry(line)
    assert isinstance(back, Scraped)
    assert [repr(sample.value) for sample in back.samples] == ["inf", "nan", "-inf"]


def test_fields_at_their_default_are_not_written() -> None:
    line = encode_entry(Ended(2.0, "a", Outcome.OK, prompt_logprobs=(None, TokenLogprob(3, -0.5))))
    assert line == (
        '{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","prompt_logprobs":[null,[3,-0.5]],'
        '"ending":"completed"}'
    )


def test_rows_of_the_first_token_are_written_as_pairs_and_read_back_to_the_last_bit() -> None:
    entry = Ended(
        2.0, "a", Outcome.OK, first_logprobs=((5, -0.1 - 0.2), (7, -2)), prefill_first=((7, math.nan), (5, -math.inf))
    )
    line = encode_entry(entry)
    assert line.endswith(
        '"ending":"completed","first_logprobs":[[5,-0.30000000000000004],[7,-2]],'
        '"prefill_first":[[7,"nan"],[5,"-inf"]]}'
    )
    assert repr(decode_entry(line)) == repr(entry).replace("-2)", "-2.0)")


def test_an_end_of_an_earlier_version_has_no_rows_of_the_first_token() -> None:
    back = decode_entry('{"kind":"ended","at":2.0,"request_id":"a","outcome":"ok","ending":"completed"}')
    assert back == Ended(2.0, "a", Outcome.OK)
    assert isinstance(back, Ended)
    assert back.first_logprobs == back.prefill_first == ()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"kind":"teleported","at":1.0}', "teleported.*not known to this version"),
        ('{"kind":"noted","at":1.0,"text":"a","mood":"b"}', "no field 'mood'"),
        ('{"kind":"noted","at":1.0}', "incomplete"),
        ('{"kind":"noted","at":"soon","text":"a"}', "'soon' where a number"),
        ('{"kind":"ended","at":1.0,"request_id":"a","outcome":"fine"}', "one of ok, fail, info"),
        ('{"kind":"ended","at":1.0,"request_id":"a","outcome":"ok","status":"200"}', "none of the forms"),
        ('{"kind":"ended","at":1.0,"request_id":"a","outcome":"ok","token_times":[1.0,true]}', "True"),
        ('{"kind":"ended","at":1,"request_id":"a","outcome":"ok","prompt_logprobs":[[1,2,3,4,5,6,7]]}', "7 fields"),
        ('{"kind":"ended","at":1,"request_id":"a","outcome":"ok","prefill_first":[[1]]}', "2 values"),
        ('{"kind":"ended","at":1,"request_id":"a","outcome":"ok","prefill_first":[[1,-1.0],[1,2,3]]}', "2 values"),
        ('{"kind":"ended","at":1,"request_id":"a","outcome":"ok","prefill_first":[["1",-1.0]]}', "where int"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_line_that_is_not_an_entry_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        decode_entry(line)


def _written(path: Path) -> Path:
    with JournalWriter(path) as journal:
        for entry in entries():
            journal.record(entry)
    return path


def test_a_journal_holds_all_entries_in_order(tmp_path: Path) -> None:
    assert tuple(read_journal(_written(tmp_path / "h.jsonl"))) == entries()


def test_an_incomplete_last_line_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    path = _written(tmp_path / "h.jsonl")
    whole = path.read_bytes()
    start_of_last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start_of_last, len(whole)):
        path.write_bytes(whole[:length])
        assert tuple(read_journal(path)) == entries()[:-1]


@pytest.mark.parametrize("number", [2, 5, len(entries()) + 1])
def test_a_damaged_line_is_an_error_that_names_file_and_line(tmp_path: Path, number: int) -> None:
    path = _written(tmp_path / "h.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1][:10] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=rf"h\.jsonl, line {number}: not JSON"):
        tuple(read_journal(path))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"", "has no entry"),
        (b'{"kind": "jour', "has no entry"),
        (b'{"kind": "journal", "format": 99}\n', "format 99"),
        (b'{"kind": "noted", "at": 1.0, "text": ""}\n', "is not a history"),
        (b"hello\n", "line 1: not JSON"),
    ],
)
def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path, header: bytes, complaint: str) -> None:
    (tmp_path / "h.jsonl").write_bytes(header)
    with pytest.raises(UsageError, match=complaint):
        tuple(read_journal(tmp_path / "h.jsonl"))


def test_a_missing_journal_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        tuple(read_journal(tmp_path / "h.jsonl"))


def test_a_writer_never_writes_over_another_run(tmp_path: Path) -> None:
    path = _written(tmp_path / "h.jsonl")
    with pytest.raises(FileExistsError):
        JournalWriter(path)


def test_flush_writes_everything(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "h.jsonl", flush_seconds=1000.0) as journal:
        journal.record(Noted(1.0, "a"))
        journal.flush()
        assert tuple(read_journal(tmp_path / "h.jsonl")) == (Noted(1.0, "a"),)


class _FullDisk:
    closed = False

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.closed = True


def test_a_full_disk_is_an_error_at_the_next_entry(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "h.jsonl", flush_seconds=1000.0)
    real, journal._file = journal._file, _FullDisk()  # type: ignore[assignment] # has the methods that are used
    real.close()
    journal.record(Noted(1.0, "a"))
    with pytest.raises(HarnessError, match="No space left on device"):
        journal.flush()
    with pytest.raises(HarnessError, match="--result-dir"):
        journal.record(Noted(2.0, "b"))
    with pytest.raises(HarnessError):
        journal.close()


_WRITER = """
import signal, sys
from pathlib import Path
from harness.history import Noted
from harness.store import JournalWriter
journal = JournalWriter(Path(sys.argv[1]))
for number in range(1000):
    journal.record(Noted(float(number), "x"))
while True:
    signal.pause()
"""


async def test_entries_survive_a_kill_of_the_writer(tmp_path: Path) -> None:
    """There is no flush or close: the writer's own thread must have written before the kill."""
    path = tmp_path / "h.jsonl"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, str(path))
    try:
        await until(
            lambda: path.exists() and path.read_bytes().count(b"\n") >= 1001,
            "the writer wrote nothing by itself",
            within=60,
        )
    finally:
        writer.kill()
        await writer.wait()
    assert list(read_journal(path)) == [Noted(float(number), "x") for number in range(1000)]


def test_entries_recorded_from_many_threads_are_all_kept(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - of this test alone

    path = tmp_path / "h.jsonl"
    with JournalWriter(path, flush_seconds=0.0001) as journal, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: journal.record(Noted(float(n), "")), range(5000)))
    assert sorted(entry.at for entry in read_journal(path) if isinstance(entry, Noted)) == list(map(float, range(5000)))


def test_the_first_entry_is_readable_json() -> None:
    assert json.loads(encode_entry(STARTED))["kind"] == "run_started"
