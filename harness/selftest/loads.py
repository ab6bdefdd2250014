"""The loads of the selftest. Each creates a condition that some planted bug needs.

Prompts are short: a few blocks of 8 tokens are enough for every fault of blocks, and in the simulator a teacher-forced
token takes as much time as a decoded one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.scenario import LOAD_LOGPROBS, Phase, Request, Sampling
from harness.sim import SimConfig

BLOCK = 8
CONCURRENCY = 32
OUTPUT = 4, 12
"""Tokens of an answer, least and most; each token depends on all of the prompt's KV.

Lengths differ so that some requests are decoded while the KV of others arrives."""
_ROOMY = 1 << 15
"""Number of blocks of a pool that is large enough for 2,000 requests without eviction."""

Ids = tuple[int, ...]


@dataclass(slots=True)
class Writer:
    """Makes prompts and requests, which the seed determines."""

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
        """Random ordinary tokens. The first two are unique, so that no two prompts share a first block."""
        high, low = divmod(self._number, len(self._ordinary))
        return (int(self._ordinary[high]), int(self._ordinary[low]), *self.tokens(length - 2))

    def ask(self, prompt: Ids, output: tuple[int, int] = OUTPUT) -> Request:
        """A streamed request through the proxy, with the leading tokens at each position."""
        self._number += 1
        most = int(self.rng.integers(*output, endpoint=True))
        return Request(f"load-{self._number:05d}", prompt, Sampling(max_tokens=most, logprobs=LOAD_LOGPROBS))

    def asks(
        self, lengths: "np.ndarray[Any, np.dtype[np.int64]]", output: tuple[int, int] = OUTPUT
    ) -> tuple[Request, ...]:
        """Requests for fresh prompts of these lengths."""
        return tuple(self.ask(self.prompt(int(length)), output) for length in lengths)

    def lengths(self, low: int, high: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Prompt lengths, uniformly distributed from ``low`` to ``high``, both included."""
        return self.rng.integers(low, high, size=count, endpoint=True)


@dataclass(frozen=True, slots=True)
class Load:
    """A load. ``write`` returns phases of about ``n`` requests in all; ``fields`` change the simulated deployment."""

    name: str
    what: str
    write: Callable[[Writer, int], tuple[Phase, ...]]
    fields: Mapping[str, Any] = field(default_factory=dict)
    susceptible: float = 1.0
    """Approximate share of the requests that the bugs tested under this load can strike."""


def _cold(writer: Writer, n: int) -> tuple[Phase, ...]:
    return (Phase("load", writer.asks(writer.lengths(10, 36, n)), CONCURRENCY),)


def _whole(writer: Writer, n: int) -> tuple[Phase, ...]:
    around = writer.lengths(2, 4, n) * BLOCK + writer.rng.choice([-1, 0, 0, 1], size=n)
    return (Phase("load", writer.asks(around), CONCURRENCY),)


def _crowded(writer: Writer, n: int) -> tuple[Phase, ...]:
    return (Phase("load", writer.asks(writer.lengths(10, 20, n), output=(8, 32)), CONCURRENCY),)


def _prefixes(writer: Writer, n: int) -> tuple[Phase, ...]:
    """Prompts that share one block with an earlier prompt: their answers depend on the block in decode's cache."""
    first = writer.asks(writer.lengths(3 * BLOCK + 2, 4 * BLOCK + 4, n // 2))
    second = tuple(
        writer.ask((*_ids(request)[:BLOCK], *writer.tokens(int(length))))
        for request, length in zip(first, writer.lengths(2, BLOCK - 1, len(first)), strict=True)
    )
    return Phase("load", first, CONCURRENCY), Phase("prefixes", second, CONCURRENCY)


def _evicted(writer: Writer, n: int) -> tuple[Phase, ...]:
    """Prompts that share one block with an earlier prompt, after prefill evicted the block to its offload tier."""
    first = writer.asks(writer.lengths(2 * BLOCK + 2, 4 * BLOCK, n // 2))
    # The first block is in the tier; decode pulls it and most of the new tokens from prefill.
    second = tuple(
        writer.ask((*_ids(request)[:BLOCK], *writer.tokens(int(length))))
        for request, length in zip(first, writer.lengths(2, 3 * BLOCK, len(first)), strict=True)
    )
    return Phase("load", first, CONCURRENCY), Phase("again", second, CONCURRENCY)


def _ids(request: Request) -> Ids:
    return tuple(token for token in request.prompt if isinstance(token, int))


_ROOM = {"block_size": BLOCK, "num_blocks": _ROOMY, "offload_chunks": _ROOMY}

COLD = Load("cold", "prompts of 10 to 36 tokens that no cache has seen", _cold, _ROOM)
WHOLE = Load("whole blocks", "prompts of about whole blocks, half of them exactly", _whole, _ROOM, susceptible=0.5)
CROWDED = Load("crowded", "short prompts and long answers: 32 requests are decoded together", _crowded, _ROOM)
PREFIXES = Load("prefixes", "half of the prompts share their first block with an earlier prompt", _prefixes, _ROOM, 0.5)
EVICTED = Load(
    "evicted",
    "the same, after prefill's pool evicted that block and only its offload tier has it",
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
    """The load under which a planted bug can strike and be seen."""
    return _NEEDS.get(bug, COLD)
