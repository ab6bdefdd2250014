"""The journal: a run's history on disk, one JSON object per line, written during the run.

Rule 1: recording never waits for the disk. An entry is encoded and put into a buffer. A separate thread writes the
buffer within half a second, and at once when a phase begins or a reading is taken.
Rule 2: written entries survive ``kill -9`` of the harness, but not a power cut.
Rule 3: a killed writer leaves at most one incomplete line, the last one, without its newline. The reader drops it. Any
other line that cannot be read is an error, because a run judged by a part of its history could come out valid.
"""

import json
import math
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self, get_args

from harness.errors import HarnessError, UsageError
from harness.history import Entry, PhaseStarted, RunEnded, RunStarted, Scraped
from harness.store.codec import MalformedError, decode, dumps, parse_json
from harness.store.earlier import convert_entry

FORMAT = 1
"""Version of the format. It is raised if an older reader would misread new entries, not if it would refuse them."""

FLUSH_SECONDS = 0.5

_MILESTONES = (RunStarted, PhaseStarted, Scraped, RunEnded)
"""Entries after which the buffer is written at once."""


def _kind(entry_type: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", entry_type.__name__).lower()


_KINDS: dict[str, type[Entry]] = {_kind(entry_type): entry_type for entry_type in get_args(Entry)}
_TAGS = {entry_type: {"kind": kind} for kind, entry_type in _KINDS.items()}


def encode_entry(entry: Entry) -> str:
    """One line, without its newline: ``{"kind": "sent", …}``."""
    return dumps(entry, _TAGS[type(entry)])


def decode_entry(line: str | bytes, *, stored: bool = False) -> Entry:
    """The entry of a line. Raises MalformedError. ``stored``: the line is from a file that may be damaged."""
    content = _an_object(parse_json(line.encode() if isinstance(line, str) else line, stored=stored))
    kind = content.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise MalformedError(f"entries of kind {kind!r:.60} are not known to this version of the harness")
    return decode(_KINDS[kind], convert_entry(kind, content))


def _checked(entry: Entry) -> Entry:
    """The entry. Raises MalformedError if it has values that the harness never writes.

    A time that is NaN compares as false with every other time, so checkers would miss late events.
    """
    for name, value in _plain_numbers(entry):
        if not math.isfinite(value):
            raise MalformedError(f"{name} is {value}, and must be a number")
    if isinstance(entry, RunStarted) and not 0 <= entry.wall < _YEAR_9999:
        raise MalformedError(f"wall is {entry.wall}, which is not a calendar time")
    return entry


_YEAR_9999 = 253_370_764_800.0
"""Seconds since 1970. Python's calendar ends there."""


def _plain_numbers(entry: Entry) -> Iterator[tuple[str, float]]:
    """The entry's own times and shares, without numbers from servers, which may have any value."""
    for name in entry.__slots__:
        value = getattr(entry, name)
        if isinstance(value, float):
            yield name, value
        elif name == "token_times":
            yield from ((name, time) for time in value)


def _an_object(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise MalformedError("not a JSON object")
    return content


class JournalWriter:
    """Appends entries to a journal. Use from any thread; close it, or use it as a context manager."""

    def __init__(self, path: Path, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("xb", buffering=0)
        self._flush_seconds = flush_seconds
        # The deque's methods are atomic, so that no entry is lost between two threads.
        self._pending = deque([json.dumps({"kind": "journal", "format": FORMAT})])
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._closing = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._keep_writing, name="journal", daemon=True)
        self._thread.start()

    def record(self, entry: Entry) -> None:
        """Append an entry; returns before it is written. Raises HarnessError if an earlier write failed."""
        self._raise_failure()
        self._pending.append(encode_entry(entry))
        if isinstance(entry, _MILESTONES):
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
            lines = []
            while self._pending:
                lines.append(self._pending.popleft() + "\n")
            if lines and self._failure is None:
                self._append(memoryview("".join(lines).encode("ascii")))

    def _append(self, content: memoryview) -> None:
        try:
            while content:
                content = content[self._file.write(content) or 0 :]
        except OSError as error:
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise HarnessError(
                f"The history could not be written to {self._path}: {self._failure.strerror}. Earlier entries are "
                "intact. Make room there, or choose another directory with --result-dir, and run again."
            ) from self._failure


def read_journal(path: Path) -> Iterator[Entry]:
    """All entries in order, without an incomplete last line. Raises UsageError with file and line."""
    try:
        with path.open("rb") as lines:
            yield from _entries(path, lines)
    except OSError as error:
        raise UsageError(f"The history {path} cannot be read: {error.strerror}. {_WANTED}") from error


_WANTED = "Name a run's directory, which contains history.jsonl."


def _entries(path: Path, lines: IO[bytes]) -> Iterator[Entry]:
    _check_header(path, lines.readline())
    for number, line in enumerate(lines, start=2):
        if not line.endswith(b"\n"):
            return
        try:
            yield _checked(decode_entry(line, stored=True))
        except MalformedError as error:
            raise UsageError(_damaged(path, number, error)) from error


def _damaged(path: Path, number: int, error: MalformedError) -> str:
    return (
        f"{path}, line {number}: {error}. The file is damaged, or a later version of the harness wrote it: judge it "
        "with the version named in its run_started entry, or run again."
    )


def _check_header(path: Path, line: bytes) -> None:
    if not line.endswith(b"\n"):
        raise UsageError(f"{path} has no entry: the run was killed when it began. Run again.")
    try:
        header = _an_object(parse_json(line, stored=True))
    except MalformedError as error:
        raise UsageError(_damaged(path, 1, error)) from error
    if header.get("kind") != "journal":
        raise UsageError(f"{path} is not a history: its first line does not name a journal format. {_WANTED}")
    if header.get("format") != FORMAT:
        raise UsageError(
            f"{path} has journal format {header.get('format')!r:.60}, but this version of the harness reads format "
            f"{FORMAT}. Judge it with the version that wrote it, or a later one."
        )
