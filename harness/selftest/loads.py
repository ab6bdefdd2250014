"""What the simulated pair is asked: one load for each condition that some planted bug needs.

Prompts are short: their KV is a few blocks of 8 tokens, which is enough for all that can go wrong with blocks, and a
teacher-forced token costs the simulator as much as a decoded one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.scenario import Phase, Request, Sampling
from harness.sim import SimConfig

BLOCK = 8
CONCURRENCY = 32
OUTPUT = 4, 12
"""Tokens of an answer, least and most: any one of them depends on all of the prompt's KV.

Unlike ones, or requests would keep step, and nobody would be decoded while others' KV arrives."""
_ROOMY = 1 << 15
"""Blocks of a pool in which nothing is ever evicted by 2,000 requests."""

Ids = tuple[int, ...]


@dataclass(slots=True)
class Writer:
    """Deals prompts and requests; the same seed deals the same ones."""

    config: SimConfig
    seed: int
    rng: np.random.Generator = field(init=False)
    _ordinary: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self._ordinary = np.setdiff1d(np.arange(self.config.vocab_size), self.config.special_token_ids)

    def tokens(self, length: int) -> Ids:
        """Random ordinary tokens."""
        drawn: list[int] = self.rng.choice(self._ordinary, size=length).tolist()
        return tuple(drawn)

    def prompt(self, length: int) -> Ids:
        """The same, opened by two tokens that no other prompt opens with: no two share a first block."""
        high, low = divmod(self._number, len(self._ordinary))
        return (int(self._ordinary[high]), int(self._ordinary[low]), *self.tokens(length - 2))

    def ask(self, prompt: Ids, output: tuple[int, int] = OUTPUT) -> Request:
        """Through the proxy, streamed, with the runner-up of each token."""
        self._number += 1
        most = int(self.rng.integers(*output, endpoint=True))
        return Request(f"load-{self._number:05d}", prompt, Sampling(max_tokens=most, logprobs=2))

    def asks(
        self, lengths: "np.ndarray[Any, np.dtype[np.int64]]", output: tuple[int, int] = OUTPUT
    ) -> tuple[Request, ...]:
        """Requests for fresh prompts of these lengths."""
        return tuple(self.ask(self.prompt(int(length)), output) for length in lengths)

    def lengths(self, low: int, high: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Prompt lengths, equally likely, both ends included."""
        return self.rng.integers(low, high, size=count, endpoint=True)


@dataclass(frozen=True, slots=True)
class Load:
    """``write`` gives the phases of about ``n`` requests in all; ``fields`` change the simulated deployment."""

    name: str
    what: str
    write: Callable[[Writer, int], tuple[Phase, ...]]
    fields: Mapping[str, Any] = field(default_factory=dict)
    susceptible: float = 1.0
    """Share of its requests, roughly, to which the bugs that need it can apply."""


def _cold(writer: Writer, n: int) -> tuple[Phase, ...]:
    return (Phase("load", writer.asks(writer.lengths(10, 36, n)), CONCURRENCY),)


def _whole(writer: Writer, n: int) -> tuple[Phase, ...]:
    around = writer.lengths(2, 4, n) * BLOCK + writer.rng.choice([-1, 0, 0, 1], size=n)
    return (Phase("load", writer.asks(around), CONCURRENCY),)


def _crowded(writer: Writer, n: int) -> tuple[Phase, ...]:
    return (Phase("load", writer.asks(writer.lengths(10, 20, n), output=(8, 32)), CONCURRENCY),)


def _prefixes(writer: Writer, n: int) -> tuple[Phase, ...]:
    """Whoever asks for one block of an earlier prompt, and no more, finds out what D keeps under its hash."""
    first = writer.asks(writer.lengths(3 * BLOCK + 2, 4 * BLOCK + 4, n // 2))
    second = tuple(
        writer.ask((*_ids(request)[:BLOCK], *writer.tokens(int(length))))
        for request, length in zip(first, writer.lengths(2, BLOCK - 1, len(first)), strict=True)
    )
    return Phase("load", first, CONCURRENCY), Phase("prefixes", second, CONCURRENCY)


def _evicted(writer: Writer, n: int) -> tuple[Phase, ...]:
    """Asked again when P's pool has long given their blocks to others, and only its offload tier has them."""
    first = writer.asks(writer.lengths(2 * BLOCK + 2, 4 * BLOCK, n // 2))
    # One block of what is in the tier, and then something new: D lacks most of it and pulls what P made of it.
    second = tuple(
        writer.ask((*_ids(request)[:BLOCK], *writer.tokens(int(length))))
        for request, length in zip(first, writer.lengths(2, 3 * BLOCK, len(first)), strict=True)
    )
    return Phase("load", first, CONCURRENCY), Phase("again", second, CONCURRENCY)


def _ids(request: Request) -> Ids:
    return tuple(token for token in request.prompt if isinstance(token, int))


_ROOM = {"block_size": BLOCK, "num_blocks": _ROOMY, "offload_chunks": _ROOMY}

COLD = Load("cold", "prompts that no cache has seen, 10 to 36 tokens", _cold, _ROOM)
WHOLE = Load("whole blocks", "lengths around whole blocks, half of them exact", _whole, _ROOM, susceptible=0.5)
CROWDED = Load("crowded", "short prompts and long answers: 32 are decoded together", _crowded, _ROOM)
PREFIXES = Load("prefixes", "half of it asks again for the first block of an earlier prompt", _prefixes, _ROOM, 0.5)
EVICTED = Load(
    "evicted",
    "the same, when P's pool has evicted that block and its offload tier has it",
    _evicted,
    _ROOM | {"prefill": {"num_blocks": 160}},
    susceptible=0.3,
)
LOADS = (COLD, WHOLE, CROWDED, PREFIXES, EVICTED)

_NEEDS = {
    "exact_block_leak": WHOLE,
    "bystander_write": CROWDED,
    "misaligned_hit": PREFIXES,
    "offload_wrong_block": EVICTED,
}


def load_for(bug: str) -> Load:
    """The load under which a planted bug can strike and show."""
    return _NEEDS.get(bug, COLD)
