"""Reads many events of a completions stream at once, if they are what vLLM writes. Pure.

``harness.load.answers.answer`` reads any event, one by one, through ``json``. It takes ten times as long, and what it
does is right by definition: this module may read nothing in another way. Whatever does not fit is left to it, all
events of the batch together, so that no odd case is decided here.

Rule 1: every event is one line ``data: `` and JSON. The end marker may be the last event, and comes nowhere else.
Rule 2: a chunk has the fields of ``shapes.Chunk`` with exactly these types, and other fields with any values.
Rule 3: msgspec accepts two things in fields that it skips that ``json`` refuses: bytes that are not UTF-8, and integers
        of more digits than Python converts. Both are looked for first.
Rule 4: the log-probabilities of a chunk are those of its tokens (rule 1 of ``parts``). Numbers are not null: null is
        NaN, a finding that is rare.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import msgspec

from harness.history import Usage
from harness.load.answers.frames import frame_of, read_choices
from harness.load.answers.logprobs import UNREADABLE
from harness.load.answers.parts import Part, parts
from harness.load.answers.shapes import Chunk, Details

_START, _END = b"data: ", b"\n\n"
_DONE = b"data: [DONE]\n\n"
_LONGEST_INTEGER = 4300
"""Digits; Python's default limit (sys.int_info.default_max_str_digits), and no user lowers it."""

_read_chunk = msgspec.json.Decoder(Chunk).decode
_read_anything = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Batch:
    """What consecutive events of a stream hold."""

    parts: list[Part]
    usage: Usage | None
    """The last one; None if no chunk has any."""
    done_at: float | None
    """Arrival of the end marker."""


def read(pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """What the events hold that begin and end with these pieces; None if any of them is to be read one by one.

    ``times``: the arrival of each piece, in seconds.
    """
    data = b"".join(pieces)
    if not (data.startswith(_START) and data.endswith(_END)) or b"\r" in data:
        return None
    try:
        if not data.isascii():
            # Raises ValueError for bytes that are not UTF-8.
            data.decode()
        return _by_frame(pieces, times) or _by_line(data, pieces, times)
    except (msgspec.MsgspecError, *UNREADABLE):
        return None


def _by_frame(pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """The batch if each piece is one event, and all but the usage and the end marker have the same frame."""
    with contextlib.suppress(msgspec.MsgspecError):
        return _framed([*pieces], [*times])
    return None


def _framed(events: list[bytes], arrivals: list[float]) -> Batch | None:
    """Raises msgspec.MsgspecError if it is not so."""
    done_at = _take_done(events, arrivals)
    if not events or (frame := frame_of(events[0])) is None:
        return None
    others = [] if events[-1].endswith(frame.end) else [events.pop()]
    if (cut := frame.cut(events)) is None or [True for one in others if not _is_event(one)]:
        return None
    payloads = [event[6:-2] for event in others]
    _refuse_long_integers([frame.chunk, *cut, *payloads])
    chunks = [_read_chunk(payload) for payload in payloads]
    if [True for chunk in chunks if chunk.choices or not chunk.usage]:
        return None
    return Batch(parts(read_choices(cut), arrivals), _last_usage(chunks), done_at)


def _by_line(data: bytes, pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """The batch however the events are split; None if a line ends anywhere but before and in an empty line."""
    events = [event + _END for event in data[:-2].split(_END)]
    arrivals: list[float] = []
    lines = 0
    for one, at in zip(pieces, times, strict=True):
        lines += one.count(b"\n")
        arrivals += [at] * (lines // 2 - len(arrivals))
    if lines != 2 * len(events) or [True for event in events if not event.startswith(_START)]:
        return None
    return _by_frame(events, arrivals) or _by_chunk(events, arrivals)


def _by_chunk(events: list[bytes], arrivals: list[float]) -> Batch | None:
    """The batch whatever the chunks have in common; None if one has neither choices nor usage."""
    done_at = _take_done(events, arrivals)
    payloads = [event[6:-2] for event in events]
    _refuse_long_integers(payloads)
    chunks = [_read_chunk(payload) for payload in payloads]
    # It may be an error or stray text.
    if [True for chunk in chunks if not chunk.choices and not chunk.usage]:
        return None
    choices = list(chain.from_iterable(chunk.choices for chunk in chunks))
    times = list(chain.from_iterable(repeat(at, len(one.choices)) for one, at in zip(chunks, arrivals, strict=True)))
    return Batch(parts(choices, times), _last_usage(chunks), done_at)


def _take_done(events: list[bytes], arrivals: list[float]) -> float | None:
    """Take the end marker from the end of the events; when it arrived, or None if it is not there."""
    if not events or events[-1] != _DONE:
        return None
    events.pop()
    return arrivals.pop()


def _is_event(event: bytes) -> bool:
    return event.startswith(_START) and event.find(b"\n") == len(event) - 2


def _refuse_long_integers(payloads: list[bytes]) -> None:
    """Raises ValueError if an integer has too many digits for Python."""
    if max(map(len, payloads), default=0) > _LONGEST_INTEGER:
        for payload in payloads:
            _read_anything(payload)


def _last_usage(chunks: list[Chunk]) -> Usage | None:
    found = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None)
    if found is None:
        return None
    details = found.prompt_tokens_details or Details()
    return Usage(found.prompt_tokens, found.completion_tokens, details.cached_tokens)
