"""Ends of operations that another process has written as lines of the journal already.

A worker that sends a part of the load writes the line of each end, and sends it with what is asked of every operation.
The main process puts the line into the journal as it is, and reads the rest of it only if somebody asks. So what costs
time for each token is done where there are many processes, and one process can keep up with many workers.
"""

from dataclasses import fields
from operator import attrgetter
from typing import Any

from harness.deferred import put_away, source_of
from harness.history import Ended, Ending, Entry, Outcome, Usage
from harness.store.entries import decode_entry, encode_line
from harness.store.lines_on_disk import LARGE

Apart = tuple[tuple[Any, ...], tuple[str, ...], int, bytes, float | None]
"""An end taken apart, of plain values: its small fields, the names of the large fields that are not empty, the number
of its output tokens, its line without the newline, and when its first token arrived."""

_SMALL = tuple(item.name for item in fields(Ended) if item.name not in LARGE)
_small_of = attrgetter(*_SMALL)
_OUTCOME, _USAGE, _ENDING = map(_SMALL.index, ("outcome", "usage", "ending"))


def taken_apart(ended: Ended) -> Apart:
    """The end as it can be sent to another process; see :func:`put_together`."""
    small = [*_small_of(ended)]
    # Of our own classes, pickle writes the names of modules each time.
    small[_OUTCOME], small[_ENDING] = str(ended.outcome), str(ended.ending)
    if (usage := ended.usage) is not None:
        small[_USAGE] = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    names = tuple([name for name in LARGE if getattr(ended, name)])
    return tuple(small), names, ended.output_tokens, encode_line(ended), ended.first_token_at


def put_together(apart: Apart) -> Ended:
    """The end, equal to the one that was taken apart. Its large fields are read from its line when asked for."""
    values, names, tokens, line, first_at = apart
    small = [*values]
    small[_OUTCOME], small[_ENDING] = Outcome(small[_OUTCOME]), Ending(small[_ENDING])
    if small[_USAGE] is not None:
        small[_USAGE] = Usage(*small[_USAGE])
    ended = Ended(**dict(zip(_SMALL, small, strict=True)))
    if names:
        put_away(ended, names, _Written(line, tokens, first_at))
    return ended


def written_line(entry: Entry) -> bytes | None:
    """The entry's line without its newline, if another process has written it and nobody has read it yet."""
    source = source_of(entry) if isinstance(entry, Ended) else None
    return source.line if isinstance(source, _Written) else None


class _Written:
    """A line in memory, as the source of an end's large fields. It is read once. Use from any thread."""

    __slots__ = ("_whole", "first_at", "line", "tokens")

    def __init__(self, line: bytes, tokens: int, first_at: float | None) -> None:
        self.line: bytes | None = line
        self.tokens, self.first_at = tokens, first_at
        self._whole: Entry | None = None

    def read(self, name: str) -> Any:
        """The content of the field."""
        line = self.line
        if line is not None:
            # In this order, a thread that finds no line finds what was read of it.
            self._whole = decode_entry(line)
            self.line = None
        return getattr(self._whole, name)
