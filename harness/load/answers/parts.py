"""Gathers what many chunks hold of each choice of an answer. Pure.

Rule 1: if a chunk has log-probabilities, each of its tokens has one row, which names it, in the same order.
Rule 2: what nearly all chunks have, one choice with one token, is looked for first: then a list of choices or of tokens
        is unpacked in one go, and no chunk costs more than a few steps of the interpreter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from harness.history import Named, TokenLogprob
from harness.load.answers import columns
from harness.load.answers.columns import Rows
from harness.load.answers.kinds import Kind

_NO_IDS: Sequence[int] = ()


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


def parts(kind: Kind, choices: list[Any], not_plain: list[Any], times: list[float]) -> list[Part]:
    """One part for each choice of an answer.

    ``choices``: what each chunk holds of a choice; ``not_plain``: all of these but those of a plain type.
    ``times``: when each of these arrived, or more times; empty if the answer is not streamed.
    """
    numbers = {choice.index for choice in not_plain}
    if len(choices) > len(not_plain):
        numbers.add(0)
    if len(numbers) == 1:
        return [_part(kind, choices, not_plain, times, numbers.pop())]
    pairs = list(zip(choices, times or repeat(0.0), strict=False))
    return [
        _part(
            kind,
            [one for one, _ in pairs if one.index == number],
            [one for one in not_plain if one.index == number],
            [at for one, at in pairs if one.index == number] if times else [],
            number,
        )
        for number in numbers
    ]


def _part(kind: Kind, choices: list[Any], not_plain: list[Any], times: list[float], index: int) -> Part:
    """Raises ValueError if there is not one row for each token. There may be more times than choices."""
    texts = kind.texts(choices)
    if len(choices) > 1 and not (texts[0] or choices[0].token_ids or choices[0].logprobs):
        # The role, with which a chat begins. With it, not every chunk has one token.
        choices, texts, times = choices[1:], texts[1:], times[1:]
    ids: list[Sequence[int]] = [choice.token_ids or _NO_IDS for choice in choices]
    try:
        token_ids = [token for (token,) in ids]
        counts = [1] * len(ids)
        part = Part(index, token_ids, "".join(texts), times[: len(ids)], counts if times else [])
    except ValueError:
        counts = list(map(len, ids))
        part = _uneven(index, ids, "".join(texts), times)
        part.text_times = [at for text, at, count in zip(texts, times, counts, strict=False) if text and not count]
    _add_ends(part, not_plain)
    if [True for choice in not_plain if choice.logprobs]:
        _add_rows(part, kind.rows(choices, counts))
    return part


def _uneven(index: int, ids: list[Sequence[int]], text: str, times: list[float]) -> Part:
    """A part whose chunks have other numbers of tokens than 1."""
    counts = list(map(len, ids))
    token_times = list(chain.from_iterable(map(repeat, times, counts)))
    return Part(index, list(chain.from_iterable(ids)), text, token_times, [one for one in counts if one and times])


def _add_ends(part: Part, choices: list[Any]) -> None:
    """Add the fields that the first or the last chunk has."""
    for one in [one for one in choices if one.finish_reason or one.prompt_token_ids or one.stop_reason is not None]:
        part.finish_reason = one.finish_reason or part.finish_reason
        part.prompt_token_ids = one.prompt_token_ids or part.prompt_token_ids
        part.stop_reason = part.stop_reason if one.stop_reason is None else one.stop_reason


def _add_rows(part: Part, rows: Rows) -> None:
    """Raises ValueError if a row names another token than its own."""
    part.logprobs = columns.token_logprobs(part.token_ids, rows)
    part.named = columns.first_named(rows)
