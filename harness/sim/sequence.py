"""The state of one sequence in an engine; a request with n > 1 has several sequences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from harness.sim.noise import RequestNoise


class Status(Enum):
    """A sequence's status, like vLLM's RequestStatus."""

    WAITING = 1
    REMOTE = 2
    """Waiting for KV that a connector loads (WAITING_FOR_REMOTE_KVS)."""
    RUNNING = 3
    PREEMPTED = 4
    FINISHED = 5


class Finish(StrEnum):
    """Why a sequence ended; the values are the labels of ``vllm:request_success``."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to generate a sequence's tokens; sampling is always greedy."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A token's reported log-probability in nats, its rank counted from 1, and the leading tokens."""

    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, eq=False)
class Sequence:
    """The whole state of a sequence in an engine."""

    id: str
    """Unique in the engine; P's answer calls it ``remote_request_id``."""
    request_id: str
    """The client's id of the request (X-Request-Id)."""
    prompt: tuple[int, ...]
    sampling: SamplingParams
    noise: RequestNoise
    root: int
    """The hash that the first block's hash is chained to (prefix_cache.py)."""
    params: dict[str, Any] | None = None
    """The request's kv_transfer_params. As in vLLM, using them sets ``do_remote_prefill`` to False."""
    arrived: float = 0.0
    ignored_connectors: frozenset[Any] = frozenset()
    """Labels of the connectors that ignore the sequence because of a planted bug."""

    tokens: list[int] = field(init=False)
    hashes: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    num_cached: int = 0
    """Number of leading blocks that have a hash."""
    computed: int = 0
    """Number of leading tokens whose KV is computed, or planned to be in this step."""
    status: Status = Status.WAITING
    finish: Finish | None = None
    stop_reason: int | str | None = None
    preemptions: int = 0
    chosen: Any = None
    """The connector that loads the sequence's KV."""
    received: bool = False
    """Whether a load has ended and the scheduler has not noticed yet."""
    load_failed: bool = False
    found: int = 0
    """Prompt tokens found locally and externally together, for ``usage``."""
    sources: tuple[int, int] | None = None
    """Prompt tokens found locally and externally; None once they are counted."""
    returned_params: Mapping[str, Any] | None = None
    total: int = 0
    """Sum of the KV of the first ``total_at`` tokens, as read from memory."""
    total_at: int = -1
    foreign_seen: int = 0
    """`KVMemory.foreign_writes` when ``total`` was read."""
    drift: float = 0.0
    wrong: bool = False
    """Ground truth: whether the sequence has read wrong KV."""
    position_shift: int = 0
    """Positions by which a planted bug shifts the recomputed tokens."""
    prompt_scores: list[Score | None] = field(default_factory=list)
    first_token_at: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def num_output(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - len(self.prompt)

    @property
    def skips_reading(self) -> bool:
        """Whether no cache is read, because prompt_logprobs need the logits of every prompt token."""
        return self.sampling.prompt_logprobs is not None


@dataclass(frozen=True, slots=True)
class Delta:
    """The result of one step for one sequence: a new token, the sequence's end, or both."""

    sequence: Sequence
    token: int | None
    score: Score | None = None
