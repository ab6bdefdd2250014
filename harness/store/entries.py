"""One entry of a history as one line of JSON, and back."""

import math
import re
from collections.abc import Iterator
from typing import Any, get_args

from harness.history import Ended, Entry, RunStarted, Sent
from harness.store.codec import decode, dumps, parse_json
from harness.store.earlier import convert_entry, convert_kind
from harness.store.lines import chunks_fit, read_line, write_line
from harness.store.readers import MalformedError


def _kind(entry_type: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", entry_type.__name__).lower()


_KINDS: dict[str, type[Entry]] = {_kind(entry_type): entry_type for entry_type in get_args(Entry)}
_TAGS = {entry_type: {"kind": kind} for kind, entry_type in _KINDS.items()}


def encode_entry(entry: Entry) -> str:
    """One line, without its newline: ``{"kind": "sent", …}``."""
    return encode_line(entry).decode()


def encode_line(entry: Entry) -> bytes:
    """The same in UTF-8."""
    line = write_line(entry) if isinstance(entry, Sent | Ended) else None
    return dumps(entry, _TAGS[type(entry)]).encode("ascii") if line is None else line


def decode_entry(line: str | bytes) -> Entry:
    """The entry of a line. Raises MalformedError."""
    line = line.encode() if isinstance(line, str) else line
    return read_line(line) or _carefully(line, stored=False)


def decode_stored(line: bytes) -> Entry:
    """The entry of a line of a file that may be damaged. Raises MalformedError.

    msgspec reads no number that the harness never writes, so only what the codec reads needs to be checked.
    """
    return read_line(line) or _checked(_carefully(line, stored=True))


def _carefully(line: bytes, *, stored: bool) -> Entry:
    content = _an_object(parse_json(line, stored=stored))
    kind = convert_kind(content.pop("kind", None))
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
    if isinstance(entry, Ended) and not chunks_fit(entry.token_times, entry.tokens_per_chunk):
        raise MalformedError("tokens_per_chunk does not add up to the times of the tokens")
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
