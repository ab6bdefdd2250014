"""Reads log-probabilities, as vLLM's two endpoints write them, into the history's form. Pure.

Completions (``CompletionLogProbs``): parallel lists; per token a dict of alternatives, the sampled token among them.
Chat (``ChatCompletionLogProbs``): a list of objects; the alternatives are a list, the sampled token among them.
Prompt log-probabilities: per token a dict from id to {logprob, rank, decoded_token}; the first token has none.

Rule 1: tokens are written as ``token_id:123``, since every body asks for that; rows of a server that writes text
        instead name no token id, and are assigned by position.
Rule 2: the sampled token is one of the alternatives. ``logprobs=1`` of a greedy answer therefore names the
        sampled token alone; a runner-up needs ``logprobs=2``.
Rule 3: null stands for NaN, which JSON cannot represent. It is kept as NaN, because NaN logits are a finding. vLLM
        writes minus infinity as -9999.

:mod:`harness.load.answers.alignment` assigns rows to tokens. Any other format raises one of ``UNREADABLE``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from harness.history import Named, TokenLogprob

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""The exceptions that reading an unexpected format may raise."""
MOST_IDS = 1 << 31
"""An upper limit for token ids and counts: far beyond any vocabulary, and safe in arrays of 64 bits."""

Leading = tuple[float | None, int | None, float | None, int | None]
"""Log-probability and id of the best token, and of the second."""

_ID = "token_id:"


class Row(NamedTuple):
    """The server's log-probabilities for one token."""

    token_id: int | None
    """None if the server wrote text instead of an id."""
    logprob: float
    leading: Leading
    """Log-probability and id of the two most probable other tokens."""
    named: Named = ()
    """Every token that the row names, if it may belong to the answer's first token; else empty, to save memory."""

    def of(self, token_id: int) -> TokenLogprob:
        """The history's form, for this token."""
        return TokenLogprob(token_id, self.logprob, *self.leading)


def read_rows(written: Mapping[str, Any], *, first_of: int = 0) -> list[Row]:
    """One row for each token with log-probabilities; with ``echo`` the prompt's rows come before the output's.

    ``first_of``: the first of so many rows, counted from the end, keeps every token that it names.
    """
    read = list(_rows_of_chat(written["content"] or ()) if "content" in written else _rows_of_completion(written))
    rows = [Row(token_id(token), _number(logprob), leading(others)) for token, logprob, others in read]
    if first_of and rows:
        at = max(len(rows) - first_of, 0)
        rows[at] = rows[at]._replace(named=named(*read[at]))
    return rows


def of_header(written: str | None) -> Named:
    """The row of a ``logprobs`` object with one row, from a response header; empty if absent or unreadable."""
    try:
        return read_rows(json.loads(written), first_of=1)[0].named if written else ()
    except UNREADABLE:
        return ()


def of_prompt(
    written: Sequence[Mapping[str, Any] | None], prompt_token_ids: Sequence[int] | None
) -> tuple[TokenLogprob | None, ...]:
    """One entry per prompt token; without ids it is the first token of each dict, as vLLM writes them."""
    if not isinstance(written, list):
        raise TypeError(f"prompt_logprobs are not a list but {type(written).__name__}")
    ids = chain(prompt_token_ids or (), repeat(None))
    return tuple(_of_prompt_token(row, token_id) for row, token_id in zip(written, ids, strict=False))


def spelled(written: Sequence[Any], most: int) -> tuple[str, ...]:
    """The last ``most`` tokens of a prompt as text; empty if the server leaves out the text of one."""
    texts = []
    for row in written[-most:]:
        own = next(iter(row.values()), None) if isinstance(row, dict) else None
        text = own.get("decoded_token") if isinstance(own, dict) else None
        if not isinstance(text, str):
            return ()
        texts.append(text)
    return tuple(texts)


def _of_prompt_token(row: Mapping[str, Any] | None, token_id: int | None) -> TokenLogprob | None:
    if not row:
        return None
    own = next(iter(row)) if token_id is None else str(token_id)
    others = [(key, alternative["logprob"]) for key, alternative in row.items() if key != own]
    number = int(own)
    if not 0 <= number < MOST_IDS:
        raise ValueError(f"{own} is not a token id")
    return TokenLogprob(number, _number(row[own]["logprob"] if own in row else None), *leading(others))


Others = Sequence[tuple[str, float | None]]
"""The other tokens in a token's row, as written, with their log-probabilities."""
Written = tuple[str, float | None, Others]
"""The token as written, its log-probability, and the other tokens."""


def _rows_of_completion(written: Mapping[str, Any]) -> Iterator[Written]:
    tokens = written["tokens"]
    tops = written.get("top_logprobs") or repeat(None)
    for token, logprob, top in zip(tokens, written["token_logprobs"], tops, strict=False):
        yield token, logprob, [(key, value) for key, value in (top or {}).items() if key != token]


def _rows_of_chat(content: Sequence[Mapping[str, Any]]) -> Iterator[Written]:
    for entry in content:
        token = entry["token"]
        tops = entry.get("top_logprobs") or ()
        # For NaN the server leaves the field out: -9999 is only its default value.
        yield token, entry.get("logprob"), [(top["token"], top["logprob"]) for top in tops if top["token"] != token]


def named(token: str, logprob: float | None, others: Others) -> Named:
    """Every token with an id; empty if the sampled token, which comes first, has none."""
    pairs = [(token_id(name), _number(value)) for name, value in ((token, logprob), *others)]
    return () if pairs[0][0] is None else tuple((number, value) for number, value in pairs if number is not None)


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log-probability is not a number but {type(value).__name__}")
    return float(value)


def leading(others: Others) -> Leading:
    """Log-probability and id of the two most probable tokens."""
    numbers = ((_number(value), token) for token, value in others)
    best = sorted(((value, token) for value, token in numbers if not math.isnan(value)), reverse=True)
    padded = [*((value, token_id(token)) for value, token in best[:2]), (None, None), (None, None)]
    return *padded[0], *padded[1]


def token_id(token: str) -> int | None:
    """The id; None if the server wrote text. For a prompt's token the server writes the number alone."""
    number = token.removeprefix(_ID)
    if not number.isdecimal() or len(number) > len(str(MOST_IDS)):
        return None
    return value if (value := int(number)) < MOST_IDS else None
