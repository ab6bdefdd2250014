"""Prompts from a seed, of any length; no two share a block."""

from collections.abc import Iterator
from typing import TypeVar
from zlib import crc32

import numpy as np

from harness.catalogue.setting import Setting
from harness.errors import UsageError

_T = TypeVar("_T")

WORDS = tuple(
    """
river mountain letter music paper number island morning table green south water story money ocean color animal family
father city school horse mile road rain face book night star wheel ship area half rock order fire problem piece told
knew pass farm whole king size heard best hour better true during hundred remember step early hold west ground reach
possible gold common boat record test busy foot moon deep surface decide object blue force full stay course nothing
inch street fact produce tail clear
""".split()  # noqa: SIM905 - a page of quoted words is no easier to read
)
"""Ordinary words that are one token each in many tokenizers."""


class Prompts:
    """A sequence of prompts: the same for the same seed and name.

    Each prompt opens with a token (or word) with which no earlier prompt opened, so no two share a block.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        self._rng = np.random.default_rng([setting.seed, crc32(name.encode())])
        special = np.array(setting.special_token_ids, dtype=np.int64)
        self._ordinary = np.setdiff1d(np.arange(setting.vocab_size), special)
        self._openings = iter(self._rng.permutation(self._ordinary).tolist())
        self._first_words = iter(self._rng.permutation(WORDS).tolist())

    def ids(self, length: int) -> tuple[int, ...]:
        """A new prompt of ``length`` token ids that shares no block with an earlier prompt."""
        return (_next(self._openings), *self.more(length - 1))

    def more(self, length: int) -> tuple[int, ...]:
        """``length`` further random token ids, to append to a prompt."""
        rest: list[int] = self._rng.choice(self._ordinary, size=length).tolist()
        return tuple(rest)

    def words(self, count: int) -> str:
        """A new text of ``count`` words, about one token each, with a first word of its own."""
        return " ".join((_next(self._first_words), *self._rng.choice(WORDS, size=count - 1).tolist()))


def _next(openings: Iterator[_T]) -> _T:
    opening = next(openings, None)
    if opening is None:
        raise UsageError(
            "The model's vocabulary has too few tokens for prompts with different first tokens: check --model."
        )
    return opening
