"""A file is replaced as a whole; what is no ordinary file is written to, and stays what it is."""

import os
import stat
from pathlib import Path

import pytest

from harness.cli import places
from harness.errors import HarnessError
from harness.store import save_text


def _pipe(directory: Path) -> Path:
    path = directory / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_gets_the_text_and_is_not_replaced(tmp_path: Path) -> None:
    pipe = _pipe(tmp_path)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        save_text(pipe, "text\n")
        assert os.read(reader, 100) == b"text\n"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_an_error_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = _pipe(tmp_path)
    with pytest.raises(HarnessError, match="could not be written"):
        save_text(pipe, "text\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_may_be_named_for_a_file(tmp_path: Path) -> None:
    pipe = _pipe(tmp_path)
    places._require(pipe)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    save_text(path, "after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]
