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

from harness.deferred import put_away, read_from
from harness.errors import HarnessError
from harness.history import Ended, Entry, Sent
from harness.scenario import Prompt
from harness.store.entries import decode_entry
from harness.store.lines import UNREADABLE, read_fields
from harness.store.readers import MalformedError

HELD = 2 << 20
"""Bytes. As Python objects, the fields of a line need about eight times as much."""
LATELY = 1 << 18
"""Bytes of lines of which a field was read and is kept: who asks for one often asks for it again at once."""

LARGE = (
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
_TOGETHER = {
    name: names
    for names in (("token_times", "tokens_per_chunk"), ("first_logprobs", "prefill_first"))
    for name in names
}
"""Fields that are read at once, because who asks for one of them asks for the other: most of the cost is the line."""


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
            put_away(entry.request, ("prompt",), _Line(self, _placed(offset, length, _ids(entry.request.prompt))))
        elif isinstance(entry, Ended):
            source = _Line(self, _placed(offset, length, entry.output_tokens))
            # To look at fields that lie elsewhere would be to read them.
            if not read_from(entry, source):
                put_away(entry, [name for name in LARGE if getattr(entry, name)], source)

    def field(self, offset: int, length: int, name: str) -> Any:
        """A field of the entry whose line is there. Raises HarnessError if the file was changed meanwhile."""
        # Threads may read at the same time: each step on the dictionary is whole, and at worst a field is read twice.
        key = offset, name
        if key in (lately := self._lately):
            return lately[key]
        self._bytes_lately += length
        if self._bytes_lately > LATELY:
            self._lately, self._bytes_lately = {}, length
        lately, found = self._lately, self._read(offset, length, name)
        lately.update(((offset, each), content) for each, content in found.items())
        return found[name]

    def _read(self, offset: int, length: int, name: str) -> dict[str, Any]:
        """The field, and those that are usually asked for with it."""
        names = _TOGETHER.get(name, (name,))
        try:
            return _fields(os.pread(self._descriptor, length, offset), names)
        except (OSError, MalformedError, AttributeError) as error:
            raise HarnessError(
                f"The history {self._path} cannot be read again: {error}. Do not change or remove the files of a run "
                "while it is judged."
            ) from error


def _fields(line: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        return read_fields(line, names)
    except UNREADABLE:
        entry = decode_entry(line)
        value = entry.request if isinstance(entry, Sent) else entry
        return {name: getattr(value, name) for name in names}


def _ids(prompt: Prompt) -> int:
    """The number of a prompt's token ids; 0 if it is a text or a conversation."""
    return len(prompt) if not isinstance(prompt, str) and all(isinstance(one, int) for one in prompt[:1]) else 0


class _Line(Struct, gc=False):
    """One line, as the source of an entry's large fields."""

    lines: LinesOnDisk
    placed: int
    """As :func:`_placed` makes it."""

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, 0 if it has no ids; or of all choices together."""
        return self.placed & _MOST

    def read(self, name: str) -> Any:
        return self.lines.field(self.placed >> 2 * _BITS, self.placed >> _BITS & _MOST, name)


_BITS = 32
_MOST = (1 << _BITS) - 1


def _placed(offset: int, length: int, tokens: int) -> int:
    """Where a line is and how many tokens it has, as one number: two of them for each request take half the memory."""
    return (offset << _BITS | length) << _BITS | tokens
