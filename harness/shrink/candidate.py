"""A part of a load: some of its requests, possibly shortened, and when they are sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Piece:
    """A request of the load, possibly shortened."""

    number: int
    """The request's position in the load, from 0."""
    prompt: int
    """Length of the sent prefix of the request's prompt, in tokens."""
    output: int
    """The request's max_tokens."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Pieces in the order of the load; the concurrency is at most their number."""

    pieces: tuple[Piece, ...]
    concurrency: int
    timed: bool = False
    """Whether requests are sent as far apart as in the load, whatever is in flight. If not, they are a closed loop."""

    @classmethod
    def of(cls, pieces: Iterable[Piece], concurrency: int, *, timed: bool = False) -> "Candidate":
        """A candidate of these pieces, its concurrency limited to their number."""
        kept = tuple(pieces)
        return cls(kept, max(1, min(concurrency, len(kept))), timed)

    def of_pieces(self, pieces: Iterable[Piece]) -> "Candidate":
        """The candidate with these pieces only."""
        return Candidate.of(pieces, self.concurrency, timed=self.timed)

    def only(self, numbers: Iterable[int]) -> "Candidate":
        """The candidate with these requests only."""
        wanted = set(numbers)
        return self.of_pieces(piece for piece in self.pieces if piece.number in wanted)

    def __str__(self) -> str:
        count = len(self.pieces)
        prompts = _span([piece.prompt for piece in self.pieces])
        outputs = _span([piece.output for piece in self.pieces])
        requests = "1 request" if count == 1 else f"{count} requests"
        sent = "at their original times" if self.timed else f"concurrency {self.concurrency}"
        return f"{requests}, {sent}, prompts of {prompts} and outputs of {outputs} tokens"


@dataclass(frozen=True, slots=True)
class PrefixLengths:
    """The lengths of prefixes that are tried: 1 and 2 tokens, and each block boundary with its two neighbours.

    Faults of transfers depend on blocks, so other lengths between two boundaries show nothing more.
    """

    block_size: int
    """Tokens per block."""
    whole: frozenset[int] = frozenset()
    """Numbers of the requests whose prompts are not shortened: texts and conversations."""

    def lengths(self, below: int) -> list[int]:
        """All lengths less than ``below``, the shortest first."""
        beside = {k + d for k in range(0, below + self.block_size, self.block_size) for d in (-1, 0, 1)}
        return sorted(length for length in beside | {1, 2} if 0 < length < below)

    def shorter(self, piece: Piece, length: int) -> Piece:
        """The piece with a prompt of at most ``length`` tokens."""
        return piece if piece.number in self.whole else replace(piece, prompt=min(piece.prompt, length))


def output_lengths(below: int) -> list[int]:
    """The tried output lengths: powers of two less than ``below``."""
    return [1 << bit for bit in range(max(below - 1, 0).bit_length())]


def _span(values: Sequence[int]) -> str:
    least, most = min(values, default=0), max(values, default=0)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"
