"""Reads a journal while it is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from harness.history import Entry
from harness.store.entries import decode_stored
from harness.store.journal import check_header
from harness.store.lines_on_disk import LinesOnDisk


def follow_journal(path: Path, wait: Callable[[], None]) -> Iterator[Entry]:
    """The entries in order, each soon after its line was written; never ends by itself.

    ``wait``: called when there is nothing new; returns when it is time to look again. A line that is not complete yet
    is read again later. Raises MalformedError if a line cannot be read, UsageError if the file is no journal, and
    OSError if it cannot be read at all. Large fields are read again when they are asked for.
    """
    with path.open("rb") as file:
        header = _line(file, 0, wait)
        check_header(path, header)
        on_disk, start = LinesOnDisk(path), len(header)
        while True:
            line = _line(file, start, wait)
            entry = decode_stored(line)
            on_disk.take(entry, start, len(line))
            start += len(line)
            yield entry


def _line(file: IO[bytes], start: int, wait: Callable[[], None]) -> bytes:
    """The line that begins at byte ``start``, as soon as it is complete."""
    while not (line := file.readline()).endswith(b"\n"):
        file.seek(start)
        wait()
    return line
