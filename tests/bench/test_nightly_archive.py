"""Nothing that is stored is lost: abandoned nights get a reason, damaged records stay, and only --keep removes."""

import re
from datetime import date
from pathlib import Path

import pytest
from made_nights import Nights

from bench.nightly import __main__ as nightly
from bench.nightly import archive
from bench.nightly.record import Night, Result, State, from_json, to_json


def store(result_dir: Path, nights: tuple[Night, ...]) -> None:
    for night in nights:
        directory = archive.nights_dir(result_dir) / night.name
        directory.mkdir(parents=True)
        archive.save(directory, night)


def test_a_record_is_read_as_it_was_written() -> None:
    night = Nights(3, wrong=[2]).make()[2]
    assert from_json(to_json(night).encode()) == night


@pytest.mark.parametrize(
    ("boot", "why"),
    [("another", "the machine was restarted after 6 of 6 runs"), (None, "its process 1 was killed after")],
)
def test_a_night_that_never_ended_gets_its_reason_once(tmp_path: Path, boot: str | None, why: str) -> None:
    first, second = Nights(2).make()
    second.state, second.boot_id = State.RUNNING, boot or archive.boot_id()
    store(tmp_path, (first, second))
    assert [night.name for night in archive.close_abandoned(tmp_path)] == [second.name]
    assert archive.close_abandoned(tmp_path) == []
    whole, abandoned = archive.read_all(tmp_path)
    assert whole == first
    assert why in abandoned.reasons[0]
    assert (abandoned.result, abandoned.exit_code, len(abandoned.runs)) == (Result.FAILED, 4, 6)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"name": 3}', b'{"name": "2026-01-02"}'])
def test_a_damaged_record_stays_and_is_a_night_with_that_reason(tmp_path: Path, content: bytes) -> None:
    store(tmp_path, Nights(3).make())
    damaged = archive.nights_dir(tmp_path) / "2026-01-02" / "night.json"
    damaged.write_bytes(content)
    assert nightly.main(["--result-dir", str(tmp_path), "--index-only"]) == 0
    night = archive.read_all(tmp_path)[1]
    assert (night.name, night.result) == ("2026-01-02", Result.FAILED)
    assert "damaged, and kept as it is" in night.reasons[0]
    assert damaged.read_bytes() == content
    assert "damaged, and kept" in (tmp_path / "index.html").read_text()


def test_a_night_without_a_record_is_a_night_with_that_reason(tmp_path: Path) -> None:
    (archive.nights_dir(tmp_path) / "2026-01-02").mkdir(parents=True)
    (night,) = archive.read_all(tmp_path)
    assert "has no night.json" in night.reasons[0]


def test_a_record_with_fields_of_a_later_version_is_read() -> None:
    night = Nights(1).make()[0]
    text = to_json(night).replace('"name"', '"new_field": [1], "name"', 1)
    assert from_json(text.encode()) == night


def test_nights_of_a_date_are_in_the_order_in_which_they_ran(tmp_path: Path) -> None:
    for number in (10, 2):
        (archive.nights_dir(tmp_path) / f"2026-01-02.{number}").mkdir(parents=True)
    (archive.nights_dir(tmp_path) / "2026-01-02").mkdir()
    for other in ("notes", "2026-02-30", "0000-01-01", "2026-99-99.2"):
        (archive.nights_dir(tmp_path) / other).mkdir()
    assert [night.name for night in archive.read_all(tmp_path)] == ["2026-01-02", "2026-01-02.2", "2026-01-02.10"]


def test_pruning_removes_the_oldest_and_never_the_last_good_night(tmp_path: Path) -> None:
    store(tmp_path, Nights(6, wrong=[2, 3, 4, 5]).make())
    assert archive.prune(tmp_path, 2) == ["2026-01-01", "2026-01-03", "2026-01-04"]
    assert [night.name for night in archive.read_all(tmp_path)] == ["2026-01-02", "2026-01-05", "2026-01-06"]


def test_pruning_keeps_the_night_that_has_just_run_whatever_its_date(tmp_path: Path) -> None:
    """The clock was ahead for three nights, and is right again."""
    store(tmp_path, Nights(4, wrong=[0]).make())
    assert archive.prune(tmp_path, 1, "2026-01-01") == ["2026-01-02", "2026-01-03"]
    assert [night.name for night in archive.read_all(tmp_path)] == ["2026-01-01", "2026-01-04"]


def test_pruning_keeps_a_baseline_that_is_not_valid(tmp_path: Path) -> None:
    nights = Nights(4, wrong=[1, 2, 3]).make()
    nights[0].result = Result.UNKNOWN
    store(tmp_path, nights)
    assert archive.prune(tmp_path, 1) == ["2026-01-02", "2026-01-03"]


@pytest.mark.parametrize("started", ["2026-01-02T01:00:00", "2026-01-02T02:00:00+00:00", "yesterday"])
def test_a_night_whose_length_is_not_known_has_none_on_the_page(tmp_path: Path, started: str) -> None:
    """Without a time zone, or before a clock that was set back."""
    (night,) = Nights(1, first=date(2026, 1, 2)).make()
    night.started = started
    store(tmp_path, (night,))
    assert nightly.main(["--result-dir", str(tmp_path), "--index-only"]) == 0
    assert not re.search(r">-?[\d.,]+ (s|min|h)<", (tmp_path / "index.html").read_text())


def test_an_unforeseen_error_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit status would be that of INVALID."""
    monkeypatch.setattr(nightly, "write_index", lambda _: 1 / 0)
    assert nightly.main(["--result-dir", str(tmp_path), "--index-only"]) == 4
    assert "the nightly job itself failed: ZeroDivisionError" in capsys.readouterr().err


def test_pruning_more_nights_than_there_are_removes_none(tmp_path: Path) -> None:
    store(tmp_path, Nights(2).make())
    assert archive.prune(tmp_path, 2) == []
    assert archive.prune(tmp_path, 5) == []


def test_the_page_is_rebuilt_from_the_records(tmp_path: Path) -> None:
    store(tmp_path, Nights(3, wrong=[1]).make())
    (tmp_path / "index.html").write_text("damaged")
    assert nightly.main(["--result-dir", str(tmp_path), "--index-only"]) == 0
    page = (tmp_path / "index.html").read_text()
    assert page.count('href="nights/2026-01-02/index.html"') >= 2
    assert "of the newest" in page
