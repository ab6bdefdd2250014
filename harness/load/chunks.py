"""Reads many events of a completions stream at once, if they are what vLLM writes. Pure.

``harness.load.answer`` reads any event, one by one, through ``json``. It takes ten times as long, and what it does is
right by definition: this module may read nothing in another way. Whatever does not fit is left to it, all events of the
batch together, so that no odd case is decided here.

Rule 1: every event is one line ``data: `` and JSON. The end marker may be the last event, and comes nowhere else.
Rule 2: a chunk has the fields of ``_Chunk`` with exactly these types, and other fields with any values.
Rule 3: msgspec accepts two things in fields that it skips that ``json`` refuses: bytes that are not UTF-8, and integers
        of more digits than Python converts. Both are looked for first.
Rule 4: if a chunk has log-probabilities, each of its tokens has one row, which names it, in the same order. Numbers are
        not null: null is NaN, a finding that is rare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Annotated

import msgspec

from harness.history import Named, Usage
from harness.load import columns
from harness.load.logprobs import MOST_IDS, UNREADABLE, Row

_DONE = b"[DONE]"
_START, _BETWEEN, _END = b"data: ", b"\n\ndata: ", b"\n\n"
_LONGEST_INTEGER = 4300
"""Digits; Python's default limit (sys.int_info.default_max_str_digits), and no user lowers it."""

_Natural = Annotated[int, msgspec.Meta(ge=0, lt=MOST_IDS)]
# An integer stays one until ``float``, which makes 0.0 of a -0 as the other reader does.
_Number = int | float


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Natural
    completion_tokens: _Natural
    prompt_tokens_details: _Details | None = None


class _Logprobs(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    # Without unknown fields, because ``content`` would make it the rows of a chat.
    tokens: list[str]
    token_logprobs: list[_Number]
    top_logprobs: list[dict[str, _Number] | None] | None = None
    text_offset: list[int] | None = None


_NO_ROWS = _Logprobs([], [])


class _Choice(msgspec.Struct, gc=False):
    text: str | None
    index: _Natural = 0
    token_ids: list[_Natural] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_token_ids: list[_Natural] | None = None
    prompt_logprobs: None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage | None = None
    error: None = None
    # Chat has these here.
    prompt_token_ids: None = None
    prompt_logprobs: None = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode
_read_anything = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Part:
    """What a batch holds of one choice."""

    index: int
    token_ids: list[int]
    text: str
    finish_reason: str | None
    """The last one that is not empty."""
    stop_reason: int | str | None
    rows: list[Row]
    """One per token, or none."""
    named: Named
    """Every token that the first row names."""


@dataclass(slots=True)
class Batch:
    """What consecutive events of a stream hold."""

    parts: list[Part]
    usage: Usage | None
    """The last one; None if no chunk has any."""
    prompt_token_ids: list[int]
    """Empty: not reported."""
    token_times: list[float]
    """Of the choice with index 0, as the next two."""
    tokens_per_chunk: list[int]
    text_times: list[float]
    done_at: float | None
    """Arrival of the end marker."""


def read(reads: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """What the events hold that begin and end with these reads; None if any of them is to be read one by one.

    ``times``: the arrival of each read, in seconds.
    """
    data = b"".join(reads)
    if not (data.startswith(_START) and data.endswith(_END)) or b"\r" in data:
        return None
    payloads = data[len(_START) : -len(_END)].split(_BETWEEN)
    arrivals = _arrivals(reads, times, len(payloads))
    try:
        return _batch(payloads, arrivals) if arrivals and _is_text(data) else None
    except (msgspec.MsgspecError, *UNREADABLE):
        return None


def _arrivals(reads: Sequence[bytes], times: Sequence[float], events: int) -> list[float]:
    """The time of each event's last byte; empty if a line ends anywhere but in the empty line between two events."""
    arrivals: list[float] = []
    lines = 0
    for data, at in zip(reads, times, strict=True):
        lines += data.count(b"\n")
        arrivals += [at] * (lines // 2 - len(arrivals))
    return arrivals if lines == 2 * events else []


def _is_text(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if not data.isascii():
        data.decode()
    return True


def _batch(payloads: list[bytes], arrivals: list[float]) -> Batch | None:
    done_at = arrivals[-1] if payloads[-1] == _DONE else None
    if done_at is not None:
        payloads.pop()
    chunks = [_read_chunk(payload) for payload in payloads]
    if not all(chunk.choices or chunk.usage for chunk in chunks) or _is_too_long(payloads):
        return None
    pairs = [(choice, at) for chunk, at in zip(chunks, arrivals, strict=False) for choice in chunk.choices]
    parts = [_part([one for one, _ in pairs if one.index == index], index) for index in {one.index for one, _ in pairs}]
    first = [pair for pair in pairs if pair[0].index == 0]
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None)
    return Batch(
        parts=parts,
        usage=None if usage is None else _counts(usage),
        prompt_token_ids=next((one.prompt_token_ids for one, _ in reversed(first) if one.prompt_token_ids), []),
        token_times=[at for one, at in first for _ in one.token_ids or ()],
        tokens_per_chunk=[len(one.token_ids) for one, _ in first if one.token_ids],
        text_times=[at for one, at in first if one.text and not one.token_ids],
        done_at=done_at,
    )


def _is_too_long(payloads: list[bytes]) -> bool:
    """Whether an integer has too many digits for Python; raises ValueError if so."""
    for payload in payloads:
        if len(payload) > _LONGEST_INTEGER:
            _read_anything(payload)
    return False


def _counts(usage: _Usage) -> Usage:
    details = usage.prompt_tokens_details or _Details()
    return Usage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens)


def _part(choices: list[_Choice], index: int) -> Part:
    """Raises ValueError if the rows are not one for each token."""
    rows, named = _rows(choices) if any(choice.logprobs for choice in choices) else ([], ())
    return Part(
        index=index,
        token_ids=list(chain.from_iterable(choice.token_ids or () for choice in choices)),
        text="".join([choice.text or "" for choice in choices]),
        finish_reason=next((one.finish_reason for one in reversed(choices) if one.finish_reason), None),
        stop_reason=next((one.stop_reason for one in reversed(choices) if one.stop_reason is not None), None),
        rows=rows,
        named=named,
    )


def _rows(choices: list[_Choice]) -> tuple[list[Row], Named]:
    """The rows, and every token that the first one names. Raises ValueError if they are not one for each token."""
    written = [choice.logprobs or _NO_ROWS for choice in choices]
    if [len(one.tokens) for one in written] != [len(choice.token_ids or ()) for choice in choices]:
        raise ValueError("not one row for each token")
    tokens = list(chain.from_iterable(one.tokens for one in written))
    values = chain.from_iterable(one.token_logprobs for one in written)
    tops = chain.from_iterable(one.top_logprobs or repeat(None, len(one.tokens)) for one in written)
    rows, named = columns.rows(tokens, list(values), list(tops))
    if [row.token_id for row in rows] != list(chain.from_iterable(choice.token_ids or () for choice in choices)):
        raise ValueError("a row names another token")
    return rows, named
