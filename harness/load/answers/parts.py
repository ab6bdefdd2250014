"""Gathers what many chunks hold of each choice of an answer. Pure.

Rule 1: if a chunk has log-probabilities, each of its tokens has one row, which names it, in the same order.
Rule 2: what nearly all chunks have, one choice with one token, is looked for first: then a list of choices or of tokens
        is unpacked in one go, and no chunk costs more than a few steps of the interpreter.
"""

from dataclasses import dataclass, field
from itertools import chain, repeat

from harness.history import Named, TokenLogprob
from harness.load.answers import columns
from harness.load.answers.shapes import Choice, Logprobs

_NO_ROWS = Logprobs([], [])
_NO_IDS: list[int] = []


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


def parts(choices: list[Choice], times: list[float]) -> list[Part]:
    """One part for each choice of an answer. ``times``: when each of these pieces of choices arrived, or more times."""
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


def _part(choices: list[Choice], times: list[float], index: int) -> Part:
    """Raises ValueError if there is not one row for each token. There may be more times than choices."""
    ids = [choice.token_ids or _NO_IDS for choice in choices]
    text = "".join([choice.text or "" for choice in choices])
    try:
        token_ids = [token for (token,) in ids]
        counts = [1] * len(ids)
        part = Part(index, token_ids, text, times[: len(ids)], counts)
    except ValueError:
        counts = list(map(len, ids))
        part = _uneven(index, ids, text, times)
        found = zip(choices, times, counts, strict=False)
        part.text_times = [at for choice, at, count in found if choice.text and not count]
    _add_ends(part, choices)
    if [True for choice in choices if choice.logprobs]:
        _add_rows(part, choices, counts)
    return part


def _uneven(index: int, ids: list[list[int]], text: str, times: list[float]) -> Part:
    """A part whose chunks have other numbers of tokens than 1."""
    counts = list(map(len, ids))
    token_times = list(chain.from_iterable(map(repeat, times, counts)))
    return Part(index, list(chain.from_iterable(ids)), text, token_times, [count for count in counts if count])


def _add_ends(part: Part, choices: list[Choice]) -> None:
    """Add the fields that the first or the last chunk has."""
    for one in [one for one in choices if one.finish_reason or one.prompt_token_ids or one.stop_reason is not None]:
        part.finish_reason = one.finish_reason or part.finish_reason
        part.prompt_token_ids = one.prompt_token_ids or part.prompt_token_ids
        part.stop_reason = part.stop_reason if one.stop_reason is None else one.stop_reason


def _add_rows(part: Part, choices: list[Choice], counts: list[int]) -> None:
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
