"""Builds the rows of many tokens at once, column by column. Pure.

``harness.load.logprobs`` reads them row by row, in any format. A run has millions of them: here a name is looked up
instead of parsed again, and alternatives that are sorted already are not sorted.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat

from harness.history import Named
from harness.load import logprobs
from harness.load.logprobs import Leading, Row

Top = Mapping[str, int | float]
"""The alternatives of one token, the token itself among them."""

_MOST_NAMES = 1 << 16
_ALONE: Leading = (None, None, None, None)
_as_row = partial(tuple.__new__, Row)


class _Ids(dict[str, int | None]):
    """Token ids by the names that servers write, which repeat a lot."""

    def __missing__(self, name: str) -> int | None:
        if len(self) >= _MOST_NAMES:
            self.clear()
        self[name] = token = logprobs.token_id(name)
        return token


_ids = _Ids()


def rows(tokens: Sequence[str], values: Sequence[int | float], tops: Sequence[Top | None]) -> tuple[list[Row], Named]:
    """One row for each token, and every token that the first row names.

    Raises ValueError if there is not one value and one dict of alternatives (or None) for each token.
    """
    leading = [_leading(token, top) if top else _ALONE for token, top in zip(tokens, tops, strict=True)]
    found = zip(map(_ids.__getitem__, tokens), map(float, values), leading, repeat((), len(tokens)), strict=True)
    named = logprobs.named(tokens[0], values[0], _others(tokens[0], tops[0] or {})) if tokens else ()
    return list(map(_as_row, found)), named


def _leading(token: str, top: Top) -> Leading:
    """Log-probability and id of the two most probable other tokens.

    vLLM writes the token and then the others in the order of their probability; any other order, and equal ones, whose
    order is that of their names, are sorted.
    """
    names, values = [*top], [*map(float, top.values())]
    if len(names) == 2 and names[0] == token:
        return values[1], _ids[names[1]], None, None
    if len(names) > 2 and names[0] == token and values[1] > values[2] > max(values[3:], default=-math.inf):
        return values[1], _ids[names[1]], values[2], _ids[names[2]]
    return logprobs.leading(_others(token, top))


def _others(token: str, top: Top) -> list[tuple[str, float]]:
    return [(name, value) for name, value in top.items() if name != token]
