"""Which token each log-probability belongs to. Pure.

A stream brings tokens and rows of log-probabilities chunk by chunk, and not every chunk brings as many of the one as of
the other: a chunk may have tokens and no rows, its rows may come in the next chunk, and with ``echo`` the first
chunk's rows begin with the prompt's. One row too few, counted by position, shifts all later ones by a token, and a
right answer looks as if it were made from wrong KV.

Rule 1: a row that names its token belongs to a token of that id. A row in text (a server that tells no ids) fits any.
Rule 2: a chunk's rows are of the chunk's own tokens, in order. Before the first token there may be rows of the prompt:
        of those the last ones count, as many as there are tokens.
Rule 3: where rule 2 contradicts rule 1 in any chunk, all rows of the answer are laid beside all of its tokens instead,
        in order.
Rule 4: a row that fits only one place, given all rows before and after it, belongs there. One that fits several (one of
        two equal tokens has no row) belongs to none: a token without a row is honest, a wrong row is not.

    tokens   5 6 | 7 7 | 8        rows   5 6 | 7 | 8      gives   5 6 - - 8
    tokens   5 6 | 7   | 8        rows   - | 5 6 | 7 8    gives   5 6 7 8
"""

from collections.abc import Iterable, Iterator, Sequence

from harness.history import TokenLogprob
from harness.load.logprobs import Row


class Alignment:
    """One choice's rows, as they come."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        self._chunks: list[tuple[int, int, list[Row]]] = []
        """Of each chunk with rows: the places of its first token and of the one after its last."""

    def add(self, first: int, after: int, rows: list[Row]) -> None:
        """A chunk with the tokens from place ``first`` up to ``after`` brought these rows."""
        self._chunks.append((first, after, rows))

    def of(self, token_ids: Sequence[int]) -> tuple[TokenLogprob | None, ...]:
        """One per token, None where there is none; empty where no row came at all."""
        if not token_ids or not self._chunks:
            return ()
        rows = self._by_chunk(token_ids) or self._by_answer(token_ids)
        return tuple(None if row is None else row.of(token) for token, row in zip(token_ids, rows, strict=True))

    def _by_chunk(self, token_ids: Sequence[int]) -> list[Row | None] | None:
        """Rule 2; None where it does not hold."""
        found: list[Row | None] = [None] * len(token_ids)
        for first, after, rows in self._chunks:
            own = rows[-(after - first) :] if first == 0 < after else rows
            if (places := _places(own, token_ids[first:after])) is None:
                return None
            for place, row in places:
                found[first + place] = row
        return found

    def _by_answer(self, token_ids: Sequence[int]) -> list[Row | None]:
        """Rule 3."""
        found: list[Row | None] = [None] * len(token_ids)
        rows = [row for *_, of_chunk in self._chunks for row in of_chunk]
        for place, row in _places(rows[-len(token_ids) :], token_ids) or ():
            found[place] = row
        return found


def _places(rows: Sequence[Row], token_ids: Sequence[int]) -> list[tuple[int, Row]] | None:
    """Rows with a certain place (rule 4); None where they do not fit in order at all."""
    earliest = list(_fit(rows, enumerate(token_ids)))
    if len(earliest) < len(rows):
        return None
    last = len(token_ids) - 1
    latest = list(_fit(rows[::-1], ((last - i, token) for i, token in enumerate(reversed(token_ids)))))[::-1]
    return [(one, row) for one, other, row in zip(earliest, latest, rows, strict=True) if one == other]


def _fit(rows: Sequence[Row], tokens: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The first place for each row in turn, as far as they fit; ``tokens``: place and id."""
    waiting = iter(rows)
    row = next(waiting, None)
    for place, token in tokens:
        if row is None:
            return
        if row.token_id is None or row.token_id == token:
            yield place
            row = next(waiting, None)
