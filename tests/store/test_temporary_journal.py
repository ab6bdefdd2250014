"""A run that is not stored: what its entries have for each token lies in a file that nobody has to remove."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from run_fixtures import entries

from harness.deferred import tokens_put_away
from harness.history import Ended, Sent
from harness.store import lines_on_disk, temporary_journal


@pytest.fixture(autouse=True)
def all_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the entries of small journals stay in memory."""
    monkeypatch.setattr(lines_on_disk, "HELD", 0)


def test_entries_are_put_away_and_read_after_the_journal_is_closed_and_its_name_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = [replace(one) for one in entries()]
    with temporary_journal() as journal:
        assert journal is not None
        assert list(tmp_path.iterdir()) == []
        for one in kept:
            journal.record(one)
    values = [one.request if isinstance(one, Sent) else one for one in kept if isinstance(one, Sent | Ended)]
    assert all(tokens_put_away(one) is not None for one in values)
    assert tuple(kept) == entries()


def test_where_no_file_can_be_made_the_history_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with temporary_journal() as journal:
        assert journal is None
