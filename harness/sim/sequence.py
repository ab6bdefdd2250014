"""One sequence that an engine serves: a request, or one of its n."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from harness.sim.noise import RequestNoise


class Status(Enum):
    """Where a sequence is, as vLLM's RequestStatus."""

    WAITING = 1
    REMOTE = 2
    """Waiting for KV that a connector loads (WAITING_FOR_REMOTE_KVS)."""
    RUNNING = 3
    PREEMPTED = 4
    FINISHED = 5


class Finish(StrEnum):
    """Why a sequence ended; the values are those of ``vllm:request_success``'s label."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What a sequence was asked for. Everything is greedy."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A token's log-probability as reported, its rank from 1, and the leading tokens."""

    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, eq=False)
class Sequence:
    """Its whole state in an engine."""

    id: str
    """Unique in the engine; what P calls ``remote_request_id``."""
    request_id: str
    """What the client called the request (X-Request-Id)."""
    prompt: tuple[int, ...]
    sampling: SamplingParams
    noise: RequestNoise
    root: int
    """What the first block's hash chains on (prefix_cache.py)."""
    params: dict[str, Any] | None = None
    """Its kv_transfer_params; consumed as vLLM does: ``do_remote_prefill`` turns False."""
    arrived: float = 0.0
    without: frozenset[Any] = frozenset()
    """Connectors that a planted bug makes ignore it."""

    tokens: list[int] = field(init=False)
    hashes: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    num_cached: int = 0
    """Leading blocks that carry a hash already."""
    computed: int = 0
    status: Status = Status.WAITING
    finish: Finish | None = None
    stop_reason: int | str | None = None
    preemptions: int = 0
    chosen: Any = None
    """The connector that loads for it."""
    received: bool = False
    load_failed: bool = False
    found: int = 0
    """Prompt tokens found locally and externally, as usage tells them."""
    sources: tuple[int, int] | None = None
    """Prompt tokens found locally and externally, until they are counted."""
    returned_params: Mapping[str, Any] | None = None
    total: int = 0
    """Sum of the KV of the first ``total_at`` tokens, as read from memory."""
    total_at: int = -1
    foreign_seen: int = 0
    drift: float = 0.0
    wrong: bool = False
    """Ground truth: it has read KV that is not its own."""
    position_shift: int = 0
    prompt_scores: list[Score | None] = field(default_factory=list)
    first_token_at: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def num_output(self) -> int:
        """Tokens generated."""
        return len(self.tokens) - len(self.prompt)

    @property
    def skips_reading(self) -> bool:
        """Whether it reads no cache and no connector: vLLM needs every prompt token's logits for prompt_logprobs."""
        return self.sampling.prompt_logprobs is not None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step did for one sequence: a token, or its end, or both."""

    sequence: Sequence
    token: int | None
    score: Score | None = None
