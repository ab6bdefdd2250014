"""Reads many events of a completions stream at once, if they are what vLLM writes. Pure.

``harness.load.answers.answer`` reads any event, one by one, through ``json``. It takes ten times as long, and what it
does is right by definition: this module may read nothing in another way. Whatever does not fit is left to it, all
events of the batch together, so that no odd case is decided here.

Rule 1: every event is one line ``data: `` and JSON. The end marker may be the last event, and comes nowhere else.
Rule 2: a chunk has the fields of ``_Chunk`` with exactly these types, and other fields with any values.
Rule 3: msgspec accepts two things in fields that it skips that ``json`` refuses: bytes that are not UTF-8, and integers
        of more digits than Python converts. Both are looked for first.
Rule 4: if a chunk has log-probabilities, each of its tokens has one row, which names it, in the same order. Numbers are
        not null: null is NaN, a finding that is rare.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Annotated

import msgspec

from harness.history import Named, TokenLogprob, Usage
from harness.load.answers import columns
from harness.load.answers.logprobs import MOST_IDS, UNREADABLE

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


class _Logprobs(msgspec.Struct, gc=False):
    token_logprobs: list[_Number]
    tokens: list[str]
    top_logprobs: list[dict[str, _Number] | None] | None = None
    # The rows of a chat; no number fits, so that the chunk is left to the other reader.
    content: Annotated[int, msgspec.Meta(gt=0, lt=0)] = 0


_NO_ROWS = _Logprobs([], [])
_NO_IDS: list[int] = []


class _Choice(msgspec.Struct, gc=False, kw_only=True):
    # In vLLM's order, in which msgspec looks for them first.
    index: _Natural = 0
    text: str | None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_token_ids: list[_Natural] | None = None
    prompt_logprobs: None = None
    token_ids: list[_Natural] | None = None


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
    token_times: list[float]
    tokens_per_chunk: list[int]
    finish_reason: str | None = None
    """The last one that is not empty."""
    stop_reason: int | str | None = None
    prompt_token_ids: list[int] | None = None
    """None or empty: not reported."""
    text_times: list[float] = field(default_factory=list)
    """Arrivals of texts without tokens."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    """One per token, or none."""
    named: Named = ()
    """Every token that the first row names."""


@dataclass(slots=True)
class Batch:
    """What consecutive events of a stream hold."""

    parts: list[Part]
    usage: Usage | None
    """The last one; None if no chunk has any."""
    done_at: float | None
    """Arrival of the end marker."""


def read(reads: Sequence[bytes], times: Sequence[float]) -> Batch | None:
    """What the events hold that begin and end with these reads; None if any of them is to be read one by one.

    ``times``: the arrival of each read, in seconds.
    """
    data = b"".join(reads)
    if not (data.startswith(_START) and data.endswith(_END)) or b"\r" in data:
        return None
    payloads, arrivals = _by_read(reads, times) or _by_line(data, reads, times)
    try:
        return _batch(payloads, arrivals) if payloads and _is_text(data) else None
    except (msgspec.MsgspecError, *UNREADABLE):
        return None


_Found = tuple[list[bytes], list[float]]
"""Payloads of events, and the time at which the last byte of each arrived."""


def _by_read(reads: Sequence[bytes], times: Sequence[float]) -> _Found | None:
    """The events if each read holds whole ones, as servers write them; None if not, or if rule 1 may be broken."""
    payloads: list[bytes] = []
    arrivals: list[float] = []
    for data, at in zip(reads, times, strict=True):
        if not (data.startswith(_START) and data.endswith(_END)):
            return None
        found = data[6:-2].split(_BETWEEN)
        payloads += found
        arrivals += [at] * len(found)
    # One search in all of them takes a tenth of the time of a search in each.
    return None if b"\n" in b"".join(payloads) else (payloads, arrivals)


def _by_line(data: bytes, reads: Sequence[bytes], times: Sequence[float]) -> _Found:
    """The events however they are split; none if a line ends anywhere but before and in an empty line."""
    payloads = data[6:-2].split(_BETWEEN)
    arrivals: list[float] = []
    lines = 0
    for one, at in zip(reads, times, strict=True):
        lines += one.count(b"\n")
        arrivals += [at] * (lines // 2 - len(arrivals))
    return (payloads, arrivals) if lines == 2 * len(payloads) else ([], [])


def _is_text(data: bytes) -> bool:
    """Whether the bytes are UTF-8; raises ValueError if not."""
    if not data.isascii():
        data.decode()
    return True


def _batch(payloads: list[bytes], arrivals: list[float]) -> Batch | None:
    done_at = arrivals[-1] if payloads[-1] == _DONE else None
    if done_at is not None:
        payloads.pop()
    chunks = [_read_chunk(payload) for payload in payloads]
    lists = [chunk.choices for chunk in chunks]
    # A chunk without choices and without usage may be an error or stray text.
    if [True for chunk in chunks if not chunk.choices and not chunk.usage] or _is_too_long(payloads):
        return None
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None)
    return Batch(_parts(lists, arrivals), None if usage is None else _counts(usage), done_at)


def _is_too_long(payloads: list[bytes]) -> bool:
    """Whether an integer has too many digits for Python; raises ValueError if so."""
    if max(map(len, payloads), default=0) > _LONGEST_INTEGER:
        for payload in payloads:
            _read_anything(payload)
    return False


def _counts(usage: _Usage) -> Usage:
    details = usage.prompt_tokens_details or _Details()
    return Usage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens)


def _parts(lists: list[list[_Choice]], times: list[float]) -> list[Part]:
    """One part for each choice of the chunks, of which each has a list of choices and a time."""
    choices = list(chain.from_iterable(lists))
    if set(map(len, lists[: len(choices)])) - {1}:
        times = list(chain.from_iterable(map(repeat, times, map(len, lists))))
    numbers = {choice.index for choice in choices}
    if len(numbers) == 1:
        return [_part(choices, times, numbers.pop())]
    pairs = list(zip(choices, times, strict=False))
    return [
        _part(
            [one for one, _ in pairs if one.index == number], [at for one, at in pairs if one.index == number], number
        )
        for number in numbers
    ]


def _part(choices: list[_Choice], times: list[float], index: int) -> Part:
    """Raises ValueError if there is not one row for each token. There may be more times than choices."""
    ids = [choice.token_ids or _NO_IDS for choice in choices]
    counts = list(map(len, ids))
    part = Part(
        index=index,
        token_ids=list(chain.from_iterable(ids)),
        text="".join([choice.text or "" for choice in choices]),
        token_times=times[: len(counts)],
        tokens_per_chunk=counts,
    )
    if set(counts) != {1}:
        part.token_times = list(chain.from_iterable(map(repeat, times, counts)))
        part.tokens_per_chunk = [count for count in counts if count]
        found = zip(choices, times, counts, strict=False)
        part.text_times = [at for choice, at, count in found if choice.text and not count]
    _add_ends(part, choices)
    if [True for choice in choices if choice.logprobs]:
        _add_rows(part, choices, counts)
    return part


def _add_ends(part: Part, choices: list[_Choice]) -> None:
    """Add the fields that the first or the last chunk has."""
    for one in [one for one in choices if one.finish_reason or one.prompt_token_ids or one.stop_reason is not None]:
        part.finish_reason = one.finish_reason or part.finish_reason
        part.prompt_token_ids = one.prompt_token_ids or part.prompt_token_ids
        part.stop_reason = part.stop_reason if one.stop_reason is None else one.stop_reason


def _add_rows(part: Part, choices: list[_Choice], counts: list[int]) -> None:
    """Raises ValueError if there is not one row for each token."""
    written = [choice.logprobs or _NO_ROWS for choice in choices]
    if [len(one.tokens) for one in written] != counts:
        raise ValueError("not one row for each token")
    tokens = [token for one in written for token in one.tokens]
    values = [value for one in written for value in one.token_logprobs]
    tops = [top for one in written for top in one.top_logprobs or repeat(None, len(one.tokens))]
    part.logprobs = columns.token_logprobs(part.token_ids, tokens, values, tops)
    if tokens:
        part.named = columns.named(tokens[0], values[0], tops[0])
