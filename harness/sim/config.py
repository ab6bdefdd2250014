"""What a simulated deployment is made of. Names as vLLM's flags and configuration have them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import UsageError
from harness.facts import Connector, KVGeometry, Role
from harness.sim.noise import Noise
from harness.sim.words import EOS, FIRST_WORD

POLICIES = ("fail", "recompute")


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """One of bugs.BUGS, switched on."""

    name: str
    rate: float = 1.0
    """Share of the requests to which it can apply; drawn from each request's id."""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """One deployment. ``prefill`` and ``decode`` override fields for one role: ``{"num_blocks": 64}``."""

    prefills: int = 1
    decodes: int = 1
    block_size: int = 16
    num_blocks: int = 4096
    """Blocks of each server's pool, the null block included."""
    vocab_size: int = 4096
    max_model_len: int = 8192
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    """Of one step; a longer prompt is prefilled in chunks."""
    prefix_caching: bool = True
    connectors: tuple[Connector, ...] = (Connector.NIXL, Connector.OFFLOADING)
    lease_seconds: float = 30.0
    """``kv_lease_duration`` on P."""
    offload_chunks: int = 4096
    """Capacity of each server's offload tier."""
    blocks_per_chunk: int = 1
    offload_prompt_only: bool = True
    """Whether the tier takes blocks of the prompt alone, as vLLM 0.32.0 does unless told otherwise."""
    load_failure_policy: str = "fail"
    geometry: KVGeometry = field(default_factory=lambda: KVGeometry(4, 2, 32, 32, 2))
    noise: Noise = field(default_factory=Noise)
    eos_rate: float = 0.002
    seed: int = 0
    bugs: tuple[PlantedBug, ...] = ()
    audit_always: bool = False
    """Compare the KV of every request with the truth, not only of those that read marked blocks (ground truth)."""
    model: str = "sim"
    version: str = "0.32.0"
    metric_prefix: str = "vllm:"
    engine_labels: int = 1
    """Label sets over which counters are spread, as with data parallelism: a reader must add them up."""
    ignores_salt: bool = False
    """Whether ``cache_salt`` is dropped, as by a gateway that does not know the field."""
    tier_ignores_salt: bool = False
    """Whether the offload tier alone keys its chunks without it."""
    prompt_tokens_details: bool = False
    """Whether answers say how many prompt tokens were cached (vLLM's ``--enable-prompt-tokens-details``)."""
    stream_interval: int = 1
    """Tokens in a chunk of a stream."""
    step_seconds: float = 0.003
    """Seconds that a step takes on the network (http.py), where nothing else does: without it whole answers are made
    between two writes, and none is seen to come in pieces."""
    prefill: Mapping[str, Any] = field(default_factory=dict)
    decode: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vocab_size <= FIRST_WORD + 16:
            raise UsageError(f"vocab_size is {self.vocab_size}, but the simulator needs more than {FIRST_WORD + 16}.")
        if self.load_failure_policy not in POLICIES:
            raise UsageError(
                f"load_failure_policy is {self.load_failure_policy!r}; it must be one of {', '.join(POLICIES)}."
            )
        if self.num_blocks < 2 or self.block_size < 1 or self.blocks_per_chunk < 1:
            raise UsageError("A pool needs at least two blocks (one is the null block), and blocks and chunks a size.")

    def of(self, role: Role) -> "SimConfig":
        """The configuration of one role's servers."""
        overrides = self.prefill if role is Role.PREFILL else self.decode
        return replace(self, prefill={}, decode={}, **overrides)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        """What prompts leave out."""
        return tuple(sorted({*range(8), EOS}))

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, K and V."""
        return self.geometry.block_bytes(self.block_size)
