"""The configuration of a simulated deployment; names follow vLLM's flags and configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import UsageError
from harness.facts import Connector, KVGeometry, Role
from harness.sim.noise import USUAL, Noise, check_kind
from harness.sim.words import EOS, FIRST_WORD

POLICIES = ("fail", "recompute")


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A bug of `harness.sim.bugs.BUGS` that is switched on."""

    name: str
    rate: float = 1.0
    """Share of the requests that the bug strikes if it can apply to them; drawn from each request's id."""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """One deployment. ``prefill`` and ``decode`` override fields for one role, such as ``{"num_blocks": 64}``."""

    prefills: int = 1
    decodes: int = 1
    block_size: int = 16
    num_blocks: int = 4096
    """Blocks in each server's pool, including the null block."""
    vocab_size: int = 4096
    max_model_len: int = 8192
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    """Tokens that one step computes at most; a longer prompt is prefilled in chunks."""
    prefix_caching: bool = True
    connectors: tuple[Connector, ...] = (Connector.NIXL, Connector.OFFLOADING)
    lease_seconds: float = 30.0
    """``kv_lease_duration`` on P."""
    offload_chunks: int = 4096
    """Capacity of each server's offload tier, in chunks."""
    blocks_per_chunk: int = 1
    offload_prompt_only: bool = True
    """Whether the tier stores only blocks of the prompt, which is vLLM 0.32.0's default."""
    load_failure_policy: str = "fail"
    pull_seconds: float = 10.0
    """Time limit of a pull, from the handshake on, between servers that have a process each. With a lease of 30 s it is
    shorter than what is left of the lease when the pull begins, at least 15 s (renewed every 5 s to 20 s)."""
    shutdown_timeout: float = 0.0
    """Seconds for which requests in flight may go on after SIGTERM (vLLM's ``--shutdown-timeout``)."""
    geometry: KVGeometry = field(default_factory=lambda: KVGeometry(4, 2, 32, 32, 2))
    noise: Noise = field(default_factory=Noise)
    """How much noise there is, if it is of the usual kind; other kinds have their scale in logit_noise.py."""
    sim_noise: str = USUAL
    """The kind of noise: one of `harness.sim.noise.KINDS`."""
    eos_rate: float = 0.002
    seed: int = 0
    bugs: tuple[PlantedBug, ...] = ()
    audit_always: bool = False
    """Check the KV of every request for the ledger, not only of requests that read tainted blocks."""
    model: str = "sim"
    version: str = "0.32.0"
    metric_prefix: str = "vllm:"
    engine_labels: int = 1
    """Number of ``engine`` labels over which each counter is spread, as with data parallelism."""
    ignores_salt: bool = False
    """Whether ``cache_salt`` is dropped, as a gateway does that does not know the field."""
    tier_ignores_salt: bool = False
    """Whether only the offload tier ignores the salt in the keys of its chunks."""
    prompt_tokens_details: bool = False
    """Whether ``usage`` states the cached prompt tokens (vLLM's ``--enable-prompt-tokens-details``)."""
    stream_interval: int = 1
    """Tokens in one chunk of a stream."""
    step_seconds: float = 0.003
    """Seconds per step when served over HTTP. Without a delay, an answer would be complete before its first chunk is
    written, and would arrive in one piece."""
    slow_share: float = 0.0
    """Share of the prompts that a prefill server begins late when served over HTTP; drawn from the prompt, so that the
    same prompts are late in each run. Two deployments that differ in ``slow_seconds`` alone differ in their slowest
    TTFTs alone."""
    slow_seconds: float = 0.0
    """By how many seconds it begins them late."""
    prefill: Mapping[str, Any] = field(default_factory=dict)
    decode: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind(self.sim_noise)
        if self.vocab_size <= FIRST_WORD + 16:
            raise UsageError(f"vocab_size is {self.vocab_size}, but the simulator needs more than {FIRST_WORD + 16}.")
        if self.load_failure_policy not in POLICIES:
            raise UsageError(
                f"load_failure_policy is {self.load_failure_policy!r}; it must be one of {', '.join(POLICIES)}."
            )
        if self.num_blocks < 2 or self.block_size < 1 or self.blocks_per_chunk < 1:
            raise UsageError(
                "num_blocks must be at least 2 (one is the null block), block_size and blocks_per_chunk at least 1."
            )

    def of(self, role: Role) -> "SimConfig":
        """The configuration of one role's servers."""
        overrides = self.prefill if role is Role.PREFILL else self.decode
        return replace(self, prefill={}, decode={}, **overrides)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        """Token ids that prompts must not contain."""
        return tuple(sorted({*range(8), EOS}))

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, K and V."""
        return self.geometry.block_bytes(self.block_size)
