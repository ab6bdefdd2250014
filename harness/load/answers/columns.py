"""Builds the log-probabilities of many tokens at once, column by column. Pure.

``harness.load.answers.logprobs`` reads them row by row, in any format, and is right by definition. A run has millions
of rows, and for each the parsing of a name and a sort take longer than reading its JSON. Here the loops over rows run
inside the interpreter, names are looked up, and what is sorted is not sorted again.
"""

import operator
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from harness.history import Named, TokenLogprob
from harness.load.answers import logprobs

Top = Mapping[str, int | float]
"""The alternatives of one token, the token itself among them."""
_Column = Sequence[Any]

_MOST_NAMES = 1 << 16


class _Ids(dict[str, int | None]):
    """Token ids by the names that servers write, which repeat a lot."""

    def __missing__(self, name: str) -> int | None:
        if len(self) >= _MOST_NAMES:
            self.clear()
        self[name] = token = logprobs.token_id(name)
        return token


_ids = _Ids()
_id_of = _ids.__getitem__


def token_logprobs(
    token_ids: Sequence[int], tokens: Sequence[str], values: Sequence[int | float], tops: Sequence[Top | None]
) -> list[TokenLogprob]:
    """The history's form of one row for each token, from a row's token, its log-probability and its alternatives.

    Raises ValueError if the rows do not name these tokens in this order, or are incomplete.
    """
    if list(map(_id_of, tokens)) != token_ids or not len(tokens) == len(values) == len(tops):
        raise ValueError("not one row for each token")
    ranked = _sorted_columns(tokens, tops) or _columns(tokens, tops)
    return list(map(TokenLogprob, token_ids, map(float, values), *ranked))


def named(token: str, logprob: float, top: Top | None) -> Named:
    """Every token that one row names."""
    return logprobs.named(token, logprob, _others(token, top or {}))


def _columns(tokens: Sequence[str], tops: Sequence[Top | None]) -> tuple[_Column, ...]:
    """Log-probability and id of the two most probable other tokens."""
    leading = [logprobs.leading(_others(token, top or {})) for token, top in zip(tokens, tops, strict=True)]
    return tuple(zip(*leading, strict=True)) or ((), (), (), ())


def _sorted_columns(tokens: Sequence[str], tops: Sequence[Top | None]) -> tuple[_Column, ...] | None:
    """The same if the alternatives are what vLLM writes for a greedy token; None if any are not.

    The token comes first and the others follow in the order of their probability, as many for each token. Equal ones
    are left to the sort, which puts them in the order of their names.
    """
    widths = {len(top) if top else 0 for top in tops}
    if len(widths) != 1 or (width := widths.pop()) < 2:
        return None
    whole = [top for top in tops if top]
    names = list(chain.from_iterable(whole))
    values = list(map(float, chain.from_iterable(top.values() for top in whole)))
    by_rank = [values[rank::width] for rank in range(1, width)]
    in_order = all(all(map(operator.gt, better, worse)) for better, worse in pairwise(by_rank))
    if names[::width] != tokens or not in_order:
        return None
    none = [None] * len(tokens)
    third = (by_rank[1], list(map(_id_of, names[2::width]))) if width > 2 else (none, none)
    return by_rank[0], list(map(_id_of, names[1::width])), *third


def _others(token: str, top: Top) -> list[tuple[str, float]]:
    return [(name, value) for name, value in top.items() if name != token]
