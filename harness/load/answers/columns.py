"""Builds the log-probabilities of many tokens at once, column by column. Pure.

``harness.load.answers.logprobs`` reads them row by row, in any format, and is right by definition. A run has millions
of rows, and for each the parsing of a name and a sort take longer than reading its JSON. Here the loops over rows run
inside the interpreter, names are looked up, and what is sorted is not sorted again.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from harness.history import Named, TokenLogprob
from harness.load.answers import logprobs

_Column = Sequence[Any]

_MOST_NAMES = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of consecutive tokens, as they are written."""

    tokens: list[str]
    values: list[int | float]
    """The log-probability of each token."""
    widths: list[int]
    """How many alternatives each row has."""
    names: list[str]
    """The alternatives of all rows, one after the other, the tokens themselves usually among them."""
    name_values: list[int | float]
    """Their log-probabilities."""
    may_repeat: bool
    """Whether a row may name one alternative twice."""


class _Ids(dict[str, int | None]):
    """Token ids by the names that servers write, which repeat a lot."""

    def __missing__(self, name: str) -> int | None:
        if len(self) >= _MOST_NAMES:
            self.clear()
        self[name] = token = logprobs.token_id(name)
        return token


_ids = _Ids()
_id_of = _ids.__getitem__


def token_logprobs(token_ids: Sequence[int], rows: Rows) -> list[TokenLogprob]:
    """The history's form of one row for each token. Raises ValueError if the rows do not name these tokens in order."""
    if list(map(_id_of, rows.tokens)) != token_ids:
        raise ValueError("not one row for each token")
    ranked = _sorted_columns(rows) or _columns(rows)
    return list(map(TokenLogprob, token_ids, map(float, rows.values), *ranked))


def first_named(rows: Rows) -> Named:
    """Every token that the first row names; empty without rows."""
    others = next(_others(rows), None)
    return () if others is None else logprobs.named(rows.tokens[0], rows.values[0], others)


def _columns(rows: Rows) -> tuple[_Column, ...]:
    """Log-probability and id of the two most probable other tokens."""
    return tuple(zip(*map(logprobs.leading, _others(rows)), strict=True)) or ((), (), (), ())


def _sorted_columns(rows: Rows) -> tuple[_Column, ...] | None:
    """The same if the alternatives are what vLLM writes for a greedy token; None if any are not.

    The token comes first and the others follow in the order of their probability, as many for each token. Equal ones
    are left to the sort, which puts them in the order of their names.
    """
    widths = {*rows.widths}
    if len(widths) != 1 or (width := widths.pop()) < 2:
        return None
    by_rank = [list(map(float, rows.name_values[rank::width])) for rank in range(1, width)]
    in_order = all(all(map(operator.gt, better, worse)) for better, worse in pairwise(by_rank))
    if rows.names[::width] != rows.tokens or not in_order or (rows.may_repeat and _repeats_token(rows, width)):
        return None
    none = [None] * len(rows.tokens)
    third = (by_rank[1], list(map(_id_of, rows.names[2::width]))) if width > 2 else (none, none)
    return by_rank[0], list(map(_id_of, rows.names[1::width])), *third


def _repeats_token(rows: Rows, width: int) -> bool:
    """Whether a row of this width names its token again, after the first place."""
    return any(any(map(operator.eq, rows.tokens, rows.names[rank::width])) for rank in range(1, width))


def _others(rows: Rows) -> Iterator[list[tuple[str, float]]]:
    """The alternatives of each row, but for the token itself."""
    pairs = zip(rows.names, rows.name_values, strict=True)
    for token, width in zip(rows.tokens, rows.widths, strict=True):
        yield [(name, value) for name, value in islice(pairs, width) if name != token]
