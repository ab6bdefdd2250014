"""A part of a load: which of its requests, how much of each, and how many at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Piece:
    """One request of the load, as far as it is left."""

    number: int
    """Its place in the load, counted from 0."""
    prompt: int
    """Tokens of its prompt that are sent, from the beginning."""
    output: int
    """Tokens of its answer, at most."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Pieces in the load's order; never more at a time than there are."""

    pieces: tuple[Piece, ...]
    concurrency: int

    @classmethod
    def of(cls, pieces: Iterable[Piece], concurrency: int) -> "Candidate":
        """With no more concurrency than there are requests: the rest would mean nothing."""
        kept = tuple(pieces)
        return cls(kept, max(1, min(concurrency, len(kept))))

    def only(self, numbers: Iterable[int]) -> "Candidate":
        """These requests of it."""
        wanted = set(numbers)
        return Candidate.of((piece for piece in self.pieces if piece.number in wanted), self.concurrency)

    def __str__(self) -> str:
        count = len(self.pieces)
        prompts = _span([piece.prompt for piece in self.pieces])
        outputs = _span([piece.output for piece in self.pieces])
        requests = "1 request" if count == 1 else f"{count} requests"
        return f"{requests}, concurrency {self.concurrency}, prompts of {prompts} and outputs of {outputs} tokens"


@dataclass(frozen=True, slots=True)
class Cutting:
    """Which lengths prompts are cut to: one and two tokens, and each block boundary with its neighbours.

    Where a transfer goes wrong depends on blocks: a length between two boundaries tells no more than one beside them.
    """

    block_size: int
    """Tokens."""
    whole: frozenset[int] = frozenset()
    """Numbers of the requests whose prompts are not cut: text, conversations."""

    def lengths(self, below: int) -> list[int]:
        """All of them that are less than ``below``, the shortest first."""
        beside = {k + d for k in range(0, below + self.block_size, self.block_size) for d in (-1, 0, 1)}
        return sorted(length for length in beside | {1, 2} if 0 < length < below)

    def shorter(self, piece: Piece, length: int) -> Piece:
        """The piece with a prompt of so many tokens at most."""
        return piece if piece.number in self.whole else replace(piece, prompt=min(piece.prompt, length))


def output_lengths(below: int) -> list[int]:
    """Powers of two that are less than ``below``."""
    return list(_powers(below))


def _powers(below: int) -> Iterator[int]:
    power = 1
    while power < below:
        yield power
        power *= 2


def _span(values: Sequence[int]) -> str:
    least, most = min(values, default=0), max(values, default=0)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"
