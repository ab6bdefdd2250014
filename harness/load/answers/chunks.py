"""Reads many events of a stream at once, or a whole answer, if they are what vLLM writes. Pure.

``harness.load.answers.answer`` reads any event, one by one, through ``json``. It takes ten times as long, and what it
does is right by definition: this module may read nothing in another way. Whatever does not fit is left to it, all
events of the batch together, so that no odd case is decided here.

Rule 1: every event is one line ``data: `` and JSON. The end marker may be the last event, and comes nowhere else.
Rule 2: a chunk has the fields of a ``Chunk`` (``shapes``, ``chat_shapes``) with exactly these types, and other fields
        with any values. All chunks of a batch are of the same endpoint.
Rule 3: msgspec accepts two things in fields that it skips that ``json`` refuses: bytes that are not UTF-8, and integers
        of more digits than Python converts. Both are looked for first.
Rule 4: the log-probabilities of a chunk are those of its tokens (rule 1 of ``parts``). Numbers are not null: null is
        NaN, a finding that is rare.
Rule 5: the prompt's tokens stand in a choice or beside the choices, not in both.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import msgspec

from harness.history import Usage
from harness.load.answers.frames import frame_of, read_choices
from harness.load.answers.kinds import BodyKind, StreamKind, kind_of_body, kind_of_stream
from harness.load.answers.logprobs import UNREADABLE
from harness.load.answers.parts import Part, parts
from harness.load.answers.shapes import Body, Chunk, Details

_START, _END = b"data: ", b"\n\n"
_DONE = b"data: [DONE]\n\n"
_LONGEST_INTEGER = 4300
"""Digits; Python's default limit (sys.int_info.default_max_str_digits), and no user lowers it."""

_DIGITS = b"0123456789"


@dataclass(slots=True)
class Batch:
    """What consecutive events of a stream hold, or a whole answer."""

    parts: list[Part]
    usage: Usage | None
    """The last one; None if no chunk has any."""
    done_at: float | None
    """Arrival of the end marker."""
    prompt_token_ids: list[int] | None = None
    """None or empty: not reported beside the choices."""
    prompt_logprobs: list[Any] | None = None
    """Of a whole answer, not yet read."""


def read(pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """What the events hold that begin and end with these pieces; None if any of them is to be read one by one.

    ``times``: the arrival of each piece, in seconds.
    """
    data = b"".join(pieces)
    if not (data.startswith(_START) and data.endswith(_END)) or b"\r" in data:
        return None
    kind = kind_of_stream(data, data.find(_END))
    try:
        _refuse_broken_text(data)
        return _by_frame(kind, pieces, times) or _by_line(kind, data, pieces, times)
    except (msgspec.MsgspecError, *UNREADABLE):
        return None


def read_body(data: bytes) -> Batch | None:
    """What a whole answer holds; None if it is to be read by the other reader. The end marker is left out."""
    try:
        _refuse_broken_text(data)
        _refuse_long_integers([data])
        return _of_body(kind_of_body(data), data)
    except (msgspec.MsgspecError, *UNREADABLE):
        return None


def _of_body(kind: BodyKind, data: bytes) -> Batch | None:
    body = kind.read_body(data)
    if not body.choices and not body.usage:
        return None
    found = _batch(parts(kind, [*body.choices], body.choices, []), [body], None)
    found.prompt_logprobs = _prompt_logprobs(body)
    return found


def _prompt_logprobs(body: Body[Any]) -> list[Any] | None:
    """Those beside the choices come before those in the last choice of index 0."""
    in_choices = [one.prompt_logprobs for one in body.choices if one.index == 0]
    return next((one for one in (body.prompt_logprobs, *reversed(in_choices)) if one is not None), None)


def _by_frame(kind: StreamKind, pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """The batch if each piece is one event, and all but the first and the last ones have the same frame."""
    with contextlib.suppress(msgspec.MsgspecError):
        return _framed(kind, [*pieces], [*times])
    return None


def _framed(kind: StreamKind, events: list[bytes], arrivals: list[float]) -> Batch | None:
    """Raises msgspec.MsgspecError if it is not so."""
    done_at = _take_done(events, arrivals)
    if not events or (frame := frame_of(kind, events[(len(events) - 1) // 2])) is None:
        return None
    # A chat's first events have the prompt's tokens beside the choices, perhaps where the frame's end would be, so that
    # the first one is not even tried. The usage is an event of its own.
    first = next((at for at, event in enumerate(events) if at and frame.holds(event)), 0)
    after = len(events) if frame.holds(events[-1]) else len(events) - 1
    others = [*events[:first], *events[after:]]
    if (cut := frame.cut(events[first:after])) is None or [True for one in others if not _is_event(one)]:
        return None
    payloads = [event[6:-2] for event in others]
    _refuse_long_integers([frame.chunk, *cut, *payloads])
    chunks = list(map(kind.read_chunk, payloads))
    if not _are_ends(chunks[:first], chunks[first:]):
        return None
    begun = [chunk.choices[0] for chunk in chunks[:first]]
    choices, not_plain = read_choices(kind, cut)
    return _batch(parts(kind, begun + choices, begun + not_plain, arrivals), chunks, done_at)


def _are_ends(first: list[Chunk[Any]], last: list[Chunk[Any]]) -> bool:
    """Whether each of the first chunks has one choice, and the last ones have the usage alone."""
    return all(len(chunk.choices) == 1 for chunk in first) and all(one.usage and not one.choices for one in last)


def _by_line(kind: StreamKind, data: bytes, pieces: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """The batch however the events are split; None if a line ends anywhere but before and in an empty line."""
    events = [event + _END for event in data[:-2].split(_END)]
    arrivals: list[float] = []
    lines = 0
    for one, at in zip(pieces, times, strict=True):
        lines += one.count(b"\n")
        arrivals += [at] * (lines // 2 - len(arrivals))
    if lines != 2 * len(events) or [True for event in events if not event.startswith(_START)]:
        return None
    return _by_frame(kind, events, arrivals) or _by_chunk(kind, events, arrivals)


def _by_chunk(kind: StreamKind, events: list[bytes], arrivals: list[float]) -> Batch | None:
    """The batch whatever the chunks have in common; None if one has neither choices nor usage."""
    done_at = _take_done(events, arrivals)
    payloads = [event[6:-2] for event in events]
    _refuse_long_integers(payloads)
    chunks = list(map(kind.read_chunk, payloads))
    # It may be an error or stray text.
    if [True for chunk in chunks if not chunk.choices and not chunk.usage]:
        return None
    choices = list(chain.from_iterable(chunk.choices for chunk in chunks))
    times = list(chain.from_iterable(repeat(at, len(one.choices)) for one, at in zip(chunks, arrivals, strict=True)))
    return _batch(parts(kind, [*choices], choices, times), chunks, done_at)


def _batch(found: list[Part], messages: Sequence[Chunk[Any] | Body[Any]], done_at: float | None) -> Batch:
    """Raises ValueError if the prompt's tokens stand in two places."""
    beside = [one.prompt_token_ids for one in messages if one.prompt_token_ids]
    if beside and any(part.prompt_token_ids for part in found if part.index == 0):
        raise ValueError("the prompt's tokens are there twice")
    return Batch(found, _last_usage(messages), done_at, beside[-1] if beside else None)


def _take_done(events: list[bytes], arrivals: list[float]) -> float | None:
    """Take the end marker from the end of the events; when it arrived, or None if it is not there."""
    if not events or events[-1] != _DONE:
        return None
    events.pop()
    return arrivals.pop()


def _is_event(event: bytes) -> bool:
    return event.startswith(_START) and event.find(b"\n") == len(event) - 2


def _refuse_broken_text(data: bytes) -> None:
    """Raises ValueError for bytes that are not UTF-8."""
    if not data.isascii():
        data.decode()


def _refuse_long_integers(payloads: list[bytes]) -> None:
    """Raises ValueError if an integer may have too many digits for Python.

    So many digits in a row cover one of the places that are looked at.
    """
    if max(map(len, payloads), default=0) <= _LONGEST_INTEGER:
        return
    for payload in payloads:
        for at in range(0, len(payload), _LONGEST_INTEGER):
            before, after = payload[max(at - _LONGEST_INTEGER, 0) : at], payload[at : at + _LONGEST_INTEGER + 1]
            digits = len(before) - len(before.rstrip(_DIGITS)) + len(after) - len(after.lstrip(_DIGITS))
            if digits > _LONGEST_INTEGER:
                raise ValueError("an integer has too many digits")


def _last_usage(messages: Sequence[Chunk[Any] | Body[Any]]) -> Usage | None:
    found = next((one.usage for one in reversed(messages) if one.usage), None)
    if found is None:
        return None
    details = found.prompt_tokens_details or Details()
    return Usage(found.prompt_tokens, found.completion_tokens, details.cached_tokens)
