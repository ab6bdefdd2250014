"""Assigns each row of log-probabilities to its token. Pure.

A chunk of a stream may hold more tokens than rows, or more rows than tokens: a chunk's rows may arrive with the next
chunk, and with ``echo`` the first chunk's rows begin with the prompt's. If rows were assigned by position alone, one
missing row would shift all later ones by a token, and a right answer would look as if it were made from wrong KV.

Rule 1: a row that names its token belongs to a token of that id. A row in text (the server reports no ids) fits any.
Rule 2: a chunk's rows belong to the chunk's own tokens, in order. Rows of the prompt may precede the first token: then
        only the last rows count, as many as the chunk has tokens.
Rule 3: if rule 2 contradicts rule 1 in any chunk, all rows of the answer are assigned to all of its tokens, in order.
Rule 4: a row belongs to a token if it fits no other, given all rows before and after it. A row that fits several tokens
        (one of two equal tokens has no row) is dropped: no row is better than a wrong one.

    tokens   5 6 | 7 7 | 8        rows   5 6 | 7 | 8      gives   5 6 - - 8
    tokens   5 6 | 7   | 8        rows   - | 5 6 | 7 8    gives   5 6 7 8
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from harness.history import Named, TokenLogprob
from harness.load.answers.logprobs import Row


@dataclass(slots=True)
class Alignment:
    """The rows of one choice, collected chunk by chunk."""

    _chunks: list[tuple[int, int, list[Row]]] = field(default_factory=list)
    """For each chunk with rows: the position of its first token, the position after its last, and the rows."""
    _exact: list[TokenLogprob] = field(default_factory=list)
    """As long as each token from the first on has its own row: these rows. Then there are no ``_chunks``."""
    _named: Named = ()
    """Every token that the first row of ``_exact`` names."""

    def add(self, first: int, after: int, rows: list[Row]) -> None:
        """Add the rows of the chunk that holds the tokens at positions ``first`` up to, not including, ``after``."""
        if self._exact:
            self._chunks.append((0, len(self._exact), _rows_of(self._exact, self._named)))
            self._exact = []
        self._chunks.append((first, after, rows))

    def add_exact(self, first: int, logprobs: list[TokenLogprob], named: Named) -> None:
        """Add chunks in which each token has its own row: of consecutive tokens from the position ``first`` on.

        ``named``: every token that the first of these rows names.
        """
        if self._chunks or first != len(self._exact):
            keeps = self.first_of(first, first + len(logprobs))
            self.add(first, first + len(logprobs), _rows_of(logprobs, named if keeps else ()))
        else:
            self._named = self._named if self._exact else named
            self._exact += logprobs

    def of(self, token_ids: Sequence[int]) -> tuple[TokenLogprob | None, ...]:
        """One entry per token, None for a token without a row; empty if the answer has no rows at all."""
        if self._exact:
            return (*self._exact, *repeat(None, len(token_ids) - len(self._exact)))
        rows = self._rows(token_ids)
        return tuple(None if row is None else row.of(token) for token, row in zip(token_ids, rows, strict=bool(rows)))

    def first_of(self, first: int, after: int) -> int:
        """The place of the answer's first token among a chunk's rows, counted from their end; 0 if it is not there.

        ``first`` and ``after`` are those of ``add``, which is called afterwards. The first rows may come late.
        """
        return after if first == 0 or not (self._chunks or self._exact) else 0

    def named_at_first(self, token_ids: Sequence[int]) -> Named:
        """Every token that the first token's row names; empty if no row belongs to the first token for certain."""
        if self._exact:
            return self._named
        first = next(iter(self._rows(token_ids)), None)
        return () if first is None else first.named

    def _rows(self, token_ids: Sequence[int]) -> list[Row | None]:
        """One entry per token; empty if the answer has no rows at all."""
        if not token_ids or not self._chunks:
            return []
        return self._by_chunk(token_ids) or self._by_answer(token_ids)

    def _by_chunk(self, token_ids: Sequence[int]) -> list[Row | None] | None:
        """Rule 2; None if it contradicts rule 1."""
        found: list[Row | None] = [None] * len(token_ids)
        for first, after, rows in self._chunks:
            own = rows[-(after - first) :] if first == 0 < after else rows
            if (positions := _positions(own, token_ids[first:after])) is None:
                return None
            for position, row in positions:
                found[first + position] = row
        return found

    def _by_answer(self, token_ids: Sequence[int]) -> list[Row | None]:
        """Rule 3."""
        found: list[Row | None] = [None] * len(token_ids)
        rows = [row for *_, of_chunk in self._chunks for row in of_chunk]
        for position, row in _positions(rows[-len(token_ids) :], token_ids) or ():
            found[position] = row
        return found


def _rows_of(logprobs: list[TokenLogprob], named: Named) -> list[Row]:
    """The rows from which the history's form was made; ``named``: what the first one names."""
    found = (
        Row(one.token_id, one.logprob, (one.runner_up, one.runner_up_id, one.third, one.third_id)) for one in logprobs
    )
    first = next(found)
    return [first._replace(named=named), *found]


def _positions(rows: Sequence[Row], token_ids: Sequence[int]) -> list[tuple[int, Row]] | None:
    """The rows that fit one position only (rule 4); None if the rows do not fit the tokens in order."""
    if [row.token_id for row in rows] == [*token_ids]:
        return list(enumerate(rows))
    earliest = list(_fit(rows, enumerate(token_ids)))
    if len(earliest) < len(rows):
        return None
    last = len(token_ids) - 1
    latest = list(_fit(rows[::-1], ((last - i, token) for i, token in enumerate(reversed(token_ids)))))[::-1]
    return [(one, row) for one, other, row in zip(earliest, latest, rows, strict=True) if one == other]


def _fit(rows: Sequence[Row], tokens: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The first fitting position of each row, in order, until one does not fit; ``tokens``: pairs (position, id)."""
    remaining = iter(rows)
    row = next(remaining, None)
    for position, token in tokens:
        if row is None:
            return
        if row.token_id is None or row.token_id == token:
            yield position
            row = next(remaining, None)
