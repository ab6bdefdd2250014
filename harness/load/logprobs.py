"""Log-probabilities as vLLM's two endpoints write them, read into the history's form. Pure.

Completions (``CompletionLogProbs``): parallel lists; per token a dict of alternatives, the sampled token among them.
Chat (``ChatCompletionLogProbs``): a list of objects; the alternatives are a list, the sampled token among them.
Prompt log-probabilities: per token a dict from id to {logprob, rank, decoded_token}; the first token has none.

Rule 1: tokens come as ``token_id:123``, since every body asks for that; a server that answers in text instead
        names no token, and is read by position.
Rule 2: the sampled token is one of the alternatives. ``logprobs=1`` of a greedy answer therefore names the
        sampled token and nobody else; a runner-up needs ``logprobs=2``.
Rule 3: null means that the server had no number, which JSON cannot carry: NaN. It is kept as NaN, because NaN
        logits are a finding. vLLM writes minus infinity as -9999.

Which token a row belongs to is told in :mod:`harness.load.alignment`. What is not of these forms raises one of
``UNREADABLE``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from harness.history import TokenLogprob

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading something of another form than was agreed on raises."""
MOST_IDS = 1 << 31
"""No vocabulary comes near; arrays of 64 bits hold all below it."""

_ID = "token_id:"


class Row(NamedTuple):
    """What the server wrote for one token."""

    token_id: int | None
    """None where it wrote text."""
    logprob: float
    leading: tuple[float | None, int | None, float | None, int | None]
    """Log-probability and id of the two best others."""

    def of(self, token_id: int) -> TokenLogprob:
        """As the history keeps it, for that token."""
        return TokenLogprob(token_id, self.logprob, *self.leading)


def read_rows(written: Mapping[str, Any]) -> list[Row]:
    """One for each token that the server wrote something for; with ``echo`` the prompt's before the output's."""
    written_rows = _rows_of_chat(written["content"] or ()) if "content" in written else _rows_of_completion(written)
    return [Row(_told_id(token), _number(logprob), _leading(others)) for token, logprob, others in written_rows]


def of_prompt(
    written: Sequence[Mapping[str, Any] | None], prompt_token_ids: Sequence[int] | None
) -> tuple[TokenLogprob | None, ...]:
    """One per prompt token; without the prompt's ids the first of each dict, where vLLM writes the token's own."""
    if not isinstance(written, list):
        raise TypeError(f"prompt_logprobs are no list but {type(written).__name__}")
    ids = chain(prompt_token_ids or (), repeat(None))
    return tuple(_of_prompt_token(row, token_id) for row, token_id in zip(written, ids, strict=False))


def spelled(written: Sequence[Any], most: int) -> tuple[str, ...]:
    """The last tokens of a prompt, ``most`` of them, as text; empty where the server does not spell them all."""
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
        raise ValueError(f"{own} is no token id")
    return TokenLogprob(number, _number(row[own]["logprob"] if own in row else None), *_leading(others))


Others = Sequence[tuple[str, float | None]]
"""The other tokens named at a token's place, as written, with their log-probabilities."""
Written = tuple[str, float | None, Others]
"""The token as written, its log-probability, and the others."""


def _rows_of_completion(written: Mapping[str, Any]) -> Iterator[Written]:
    tokens = written["tokens"]
    tops = written.get("top_logprobs") or repeat(None)
    for token, logprob, top in zip(tokens, written["token_logprobs"], tops, strict=False):
        yield token, logprob, [(key, value) for key, value in (top or {}).items() if key != token]


def _rows_of_chat(content: Sequence[Mapping[str, Any]]) -> Iterator[Written]:
    for entry in content:
        token = entry["token"]
        tops = entry.get("top_logprobs") or ()
        # A token without a number is written without the field: -9999 is only its default value.
        yield token, entry.get("logprob"), [(top["token"], top["logprob"]) for top in tops if top["token"] != token]


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log-probability is no number but {type(value).__name__}")
    return float(value)


def _leading(others: Others) -> tuple[float | None, int | None, float | None, int | None]:
    """Log-probability and id of the two best."""
    numbers = ((_number(value), token) for token, value in others)
    told = sorted(((value, token) for value, token in numbers if not math.isnan(value)), reverse=True)
    (first, first_id), (second, second_id) = [*((value, _told_id(token)) for value, token in told[:2]), *_NOBODY][:2]
    return first, first_id, second, second_id


_NOBODY: tuple[tuple[float | None, int | None], ...] = ((None, None), (None, None))


def _told_id(token: str) -> int | None:
    """None where the server wrote text. Of a prompt's token it writes the number alone."""
    number = token.removeprefix(_ID)
    if not number.isdecimal() or len(number) > len(str(MOST_IDS)):
        return None
    return told if (told := int(number)) < MOST_IDS else None
