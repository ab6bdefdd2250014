"""Log-probabilities as vLLM's two endpoints write them, read into the history's form. Pure.

Completions (``CompletionLogProbs``): parallel lists; per token a dict of alternatives, the sampled token among them.
Chat (``ChatCompletionLogProbs``): a list of objects; the alternatives are a list, the sampled token among them.
Prompt log-probabilities: per token a dict from id to {logprob, rank, decoded_token}; the first token has none.

Rule 1: tokens come as ``token_id:123``, since every body asks for that; a server that answers in text instead
        is read by position.
Rule 2: the sampled token is one of the alternatives. ``logprobs=1`` of a greedy answer therefore names the
        sampled token and nobody else; a runner-up needs ``logprobs=2``.
Rule 3: null means that the server had no number, which JSON cannot carry: NaN. It is kept as NaN, because NaN
        logits are a finding. vLLM writes minus infinity as -9999.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from harness.history import TokenLogprob

_ID = "token_id:"


def of_tokens(written: Mapping[str, Any], token_ids: Sequence[int]) -> list[TokenLogprob]:
    """One per id of ``token_ids``, fewer if the server wrote fewer.

    With ``echo`` the prompt's tokens stand before the output's: the last ``len(token_ids)`` are the output's.
    """
    rows = list(_rows_of_chat(written["content"] or ()) if "content" in written else _rows_of_completion(written))
    rows = rows[len(rows) - len(token_ids) :] if len(rows) > len(token_ids) else rows
    return [
        TokenLogprob(_id(token, by_position), _number(logprob), *_leading(others))
        for (token, logprob, others), by_position in zip(rows, token_ids, strict=False)
    ]


def of_prompt(
    written: Sequence[Mapping[str, Any] | None], prompt_token_ids: Sequence[int] | None
) -> tuple[TokenLogprob | None, ...]:
    """One per prompt token; without the prompt's ids the first of each dict, where vLLM writes the token's own."""
    ids = chain(prompt_token_ids or (), repeat(None))
    return tuple(_of_prompt_token(row, token_id) for row, token_id in zip(written, ids, strict=False))


def _of_prompt_token(row: Mapping[str, Any] | None, token_id: int | None) -> TokenLogprob | None:
    if not row:
        return None
    own = next(iter(row)) if token_id is None else str(token_id)
    others = [(key, alternative["logprob"]) for key, alternative in row.items() if key != own]
    return TokenLogprob(int(own), _number(row[own]["logprob"] if own in row else None), *_leading(others))


Others = Sequence[tuple[str, float | None]]
"""The other tokens named at a token's place, as written, with their log-probabilities."""
Row = tuple[str, float | None, Others]
"""The token as written, its log-probability, and the others."""


def _rows_of_completion(written: Mapping[str, Any]) -> Iterator[Row]:
    tokens = written["tokens"]
    tops = written.get("top_logprobs") or repeat(None)
    for token, logprob, top in zip(tokens, written["token_logprobs"], tops, strict=False):
        yield token, logprob, [(key, value) for key, value in (top or {}).items() if key != token]


def _rows_of_chat(content: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for entry in content:
        token = entry["token"]
        tops = entry.get("top_logprobs") or ()
        # A token without a number is written without the field: -9999 is only its default value.
        yield token, entry.get("logprob"), [(top["token"], top["logprob"]) for top in tops if top["token"] != token]


def _id(token: str, by_position: int) -> int:
    return int(token[len(_ID) :]) if token.startswith(_ID) else by_position


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _leading(others: Others) -> tuple[float | None, int | None, float | None, int | None]:
    """Log-probability and id of the two best."""
    told = sorted(((float(value), token) for token, value in others if value is not None), reverse=True)
    (first, first_id), (second, second_id) = [*((value, _told_id(token)) for value, token in told[:2]), *_NOBODY][:2]
    return first, first_id, second, second_id


_NOBODY: tuple[tuple[float | None, int | None], ...] = ((None, None), (None, None))


def _told_id(token: str) -> int | None:
    """None where the server wrote text."""
    number = token.removeprefix(_ID)
    return int(number) if number.isdecimal() else None
