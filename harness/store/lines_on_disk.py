"""A journal's lines, from which large fields are read again when somebody asks for them.

Entries of a stored history keep what checkers ask of every operation: ids, purpose, outcome, times. What there is for
each token lies in the journal, and is read from there. Entries of the first ``HELD`` bytes stay in memory as they are,
so that nothing of a small run is read twice.
"""

import os
import weakref
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.deferred import put_away
from harness.errors import HarnessError
from harness.history import Ended, Entry, Sent
from harness.store.codec import MalformedError
from harness.store.entries import decode_entry
from harness.store.lines import UNREADABLE, read_field

HELD = 8 << 20
"""Bytes. As Python objects, the fields of a line need about eight times as much."""
LATELY = 1 << 20
"""Bytes of lines of which a field was read and is kept: who asks for one often asks for it again at once."""

_LARGE = (
    "choices",
    "prompt_token_ids",
    "prompt_logprobs",
    "token_times",
    "tokens_per_chunk",
    "prompt_end",
    "first_logprobs",
    "prefill_first",
)
"""Fields of ``Ended`` that have something for each token."""


class LinesOnDisk:
    """The lines of one journal, which may still be written. Use from any thread.

    The file stays open as long as an entry needs it. Raises OSError if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._room = path, HELD
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._lately: dict[tuple[int, str], Any] = {}
        self._bytes_lately = 0

    def take(self, entry: Entry, offset: int, length: int) -> None:
        """Put away the entry's large fields. Its line has ``length`` bytes and begins at byte ``offset``."""
        self._room -= length
        if self._room >= 0:
            return
        if isinstance(entry, Sent):
            put_away(entry.request, ("prompt",), _Line(self, offset, length))
        elif isinstance(entry, Ended):
            put_away(entry, [name for name in _LARGE if getattr(entry, name)], _Line(self, offset, length))

    def field(self, offset: int, length: int, name: str) -> Any:
        """A field of the entry whose line is there. Raises HarnessError if the file was changed meanwhile."""
        # Threads may read at the same time: each step on the dictionary is whole, and at worst a field is read twice.
        key = offset, name
        if key in (lately := self._lately):
            return lately[key]
        content = self._read(offset, length, name)
        self._bytes_lately += length
        if self._bytes_lately > LATELY:
            self._lately, self._bytes_lately = {}, length
        self._lately[key] = content
        return content

    def _read(self, offset: int, length: int, name: str) -> Any:
        try:
            return _field(os.pread(self._descriptor, length, offset), name)
        except (OSError, MalformedError, AttributeError) as error:
            raise HarnessError(
                f"The history {self._path} cannot be read again: {error}. Do not change or remove the files of a run "
                "while it is judged."
            ) from error


def _field(line: bytes, name: str) -> Any:
    try:
        return read_field(line, name)
    except UNREADABLE:
        entry = decode_entry(line)
        return entry.request.prompt if isinstance(entry, Sent) else getattr(entry, name)


class _Line(Struct, gc=False):
    """One line, as the source of an entry's large fields."""

    lines: LinesOnDisk
    offset: int
    length: int

    def read(self, name: str) -> Any:
        return self.lines.field(self.offset, self.length, name)
