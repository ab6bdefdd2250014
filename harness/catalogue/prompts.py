"""Prompts from a seed: as long as wanted, and no two alike."""

from collections.abc import Iterable, Iterator
from typing import TypeVar
from zlib import crc32

import numpy as np

from harness.catalogue.setting import Setting
from harness.errors import UsageError

T = TypeVar("T")

WORDS = tuple(
    """
river mountain letter music paper number island morning table green south water story money ocean color animal family
father city school horse mile road rain face book night star wheel ship area half rock order fire problem piece told
knew pass farm whole king size heard best hour better true during hundred remember step early hold west ground reach
possible gold common boat record test busy foot moon deep surface decide object blue force full stay course nothing
inch street fact produce tail clear
""".split()  # noqa: SIM905 - a page of quoted words is no easier to read
)
"""Ordinary words, one token each in many tokenizers."""


def ordinary_tokens(vocab_size: int, special_token_ids: Iterable[int]) -> list[int]:
    """Token ids that are not special, in order."""
    special = set(special_token_ids)
    return [token for token in range(vocab_size) if token not in special]


class Prompts:
    """Deals prompts out. The same seed and name deal the same ones in the same order.

    Each opens with a token (or word) that none dealt before it opened with: no two share a block.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        self._rng = np.random.default_rng([setting.seed, crc32(name.encode())])
        self._ordinary = np.array(ordinary_tokens(setting.vocab_size, setting.special_token_ids))
        self._openings = iter(self._rng.permutation(self._ordinary).tolist())
        self._first_words = iter(self._rng.permutation(WORDS).tolist())

    def ids(self, length: int) -> tuple[int, ...]:
        """Token ids, ``length`` of them, with an opening of their own."""
        return (_next(self._openings), *self.more(length - 1))

    def more(self, length: int) -> tuple[int, ...]:
        """Token ids to go on with."""
        rest: list[int] = self._rng.choice(self._ordinary, size=length).tolist()
        return tuple(rest)

    def words(self, count: int) -> str:
        """A text of so many words, with an opening of its own."""
        return " ".join((_next(self._first_words), *self._rng.choice(WORDS, size=count - 1).tolist()))


def _next(openings: Iterator[T]) -> T:
    opening = next(openings, None)
    if opening is None:
        raise UsageError("The vocabulary has too few tokens for prompts that open differently: check the model.")
    return opening
