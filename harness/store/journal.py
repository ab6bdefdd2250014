"""The journal: a run's history on disk, one JSON object per line, written during the run.

Rule 1: recording never waits for the disk. A separate thread encodes and writes entries within half a second, and at
once when a phase begins, a reading is taken, or many entries are pending.
Rule 2: written entries survive ``kill -9`` of the harness, but not a power cut.
Rule 3: a killed writer leaves at most one incomplete line, the last one, without its newline. The reader drops it. Any
other line that cannot be read is an error, because a run judged by a part of its history could come out valid.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from harness.errors import HarnessError, UsageError
from harness.history import Entry, PhaseStarted, RunEnded, RunStarted, Scraped
from harness.store.codec import parse_json
from harness.store.entries import decode_entry, decode_stored, encode_entry, encode_line
from harness.store.lines_on_disk import LinesOnDisk
from harness.store.readers import MalformedError
from harness.store.written import written_line

__all__ = ["JournalWriter", "decode_entry", "encode_entry", "read_journal"]

FORMAT = 1
"""Version of the format. It is raised if an older reader would misread new entries, not if it would refuse them."""

FLUSH_SECONDS = 0.5

_MILESTONES = (RunStarted, PhaseStarted, Scraped, RunEnded)
"""Entries after which what is pending is written at once."""

_MANY = 256
"""Pending entries after which they are written at once: until then they need as much memory as a client's answers."""

_BATCH = 1 << 20
"""Bytes that are written at once, about."""


class JournalWriter:
    """Appends entries to a journal. Use from any thread; close it, or use it as a context manager.

    ``redacted``: the entry as it is to be stored. Entries that were written keep their large fields on disk alone
    (:mod:`harness.store.lines_on_disk`), which ``redacted`` must leave as they are.
    """

    def __init__(
        self,
        path: Path,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        redacted: Callable[[Entry], Entry] = lambda entry: entry,
    ) -> None:
        self._path = path
        self._redacted = redacted
        self._file: IO[bytes] = path.open("xb", buffering=0)
        self._lines = LinesOnDisk(path)
        self._flush_seconds = flush_seconds
        # The deque's methods are atomic, so that no entry is lost between two threads.
        self._pending: deque[Entry] = deque()
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._closing = False
        self._failure: Exception | None = None
        self._size = 0
        self._append(json.dumps({"kind": "journal", "format": FORMAT}).encode() + b"\n")
        self._thread = threading.Thread(target=self._keep_writing, name="journal", daemon=True)
        self._thread.start()

    def record(self, entry: Entry) -> None:
        """Append an entry; returns before it is written. Raises HarnessError if an earlier write failed."""
        self._raise_failure()
        self._pending.append(entry)
        if isinstance(entry, _MILESTONES) or len(self._pending) == _MANY:
            self._wanted.set()

    def flush(self) -> None:
        """Write everything recorded so far. Blocks, so do not call it in an event loop."""
        self._write()
        self._raise_failure()

    def close(self) -> None:
        """Write what is pending and close the file; a second call does nothing."""
        self._closing = True
        self._wanted.set()
        self._thread.join()
        if not self._file.closed:
            self._write()
            self._file.close()
        self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_writing(self) -> None:
        while not self._closing and self._failure is None:
            self._wanted.wait(self._flush_seconds)
            self._wanted.clear()
            self._write()

    def _write(self) -> None:
        with self._writing:
            try:
                while self._pending and self._failure is None:
                    self._write_batch()
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever records next must learn of it
                self._failure = error

    def _write_batch(self) -> None:
        written, lines, size = [], [], 0
        while self._pending and size < _BATCH:
            written.append(self._pending.popleft())
            entry = self._redacted(written[-1])
            lines.append((written_line(entry) or encode_line(entry)) + b"\n")
            size += len(lines[-1])
            # Other threads may run between two entries: the event loop must not wait for all of them.
            time.sleep(0)
        start = self._size
        self._append(b"".join(lines))
        for entry, line in zip(written, lines, strict=True):
            self._lines.take(entry, start, len(line))
            start += len(line)

    def _append(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self._size += len(content)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            reason = self._failure.strerror if isinstance(self._failure, OSError) else repr(self._failure)
            raise HarnessError(
                f"The history could not be written to {self._path}: {reason}. Earlier entries are "
                "intact. Make room there, or choose another directory with --result-dir, and run again."
            ) from self._failure


def read_journal(path: Path) -> Iterator[Entry]:
    """All entries in order, without an incomplete last line. Raises UsageError with file and line.

    Large fields are read again when they are asked for, so the file must not be changed meanwhile.
    """
    try:
        with path.open("rb") as lines:
            yield from _entries(path, lines)
    except OSError as error:
        raise UsageError(f"The history {path} cannot be read: {error.strerror}. {_WANTED}") from error


_WANTED = "Name a run's directory, which contains history.jsonl."


def _entries(path: Path, file: IO[bytes]) -> Iterator[Entry]:
    check_header(path, header := file.readline())
    on_disk, start = LinesOnDisk(path), len(header)
    for number, line in enumerate(file, start=2):
        if not line.endswith(b"\n"):
            return
        try:
            entry = decode_stored(line)
        except MalformedError as error:
            raise UsageError(_damaged(path, number, error)) from error
        on_disk.take(entry, start, len(line))
        start += len(line)
        yield entry


def _damaged(path: Path, number: int, error: MalformedError) -> str:
    return (
        f"{path}, line {number}: {error}. The file is damaged, or a later version of the harness wrote it: judge it "
        "with the version named in its run_started entry, or run again."
    )


def check_header(path: Path, line: bytes) -> None:
    """Raise UsageError if this is not the first line of a journal that this version reads."""
    if not line.endswith(b"\n"):
        raise UsageError(f"{path} has no entry: the run was killed when it began. Run again.")
    try:
        header = parse_json(line, stored=True)
    except MalformedError as error:
        raise UsageError(_damaged(path, 1, error)) from error
    if not isinstance(header, dict) or header.get("kind") != "journal":
        raise UsageError(f"{path} is not a history: its first line does not name a journal format. {_WANTED}")
    if header.get("format") != FORMAT:
        raise UsageError(
            f"{path} has journal format {header.get('format')!r:.60}, but this version of the harness reads format "
            f"{FORMAT}. Judge it with the version that wrote it, or a later one."
        )
