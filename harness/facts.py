"""What is known about the deployment under test. Read once, stored with the run, used by oracle and checkers.

A fact that could not be learned is None, and whatever needs it is ``unknown``; it is never guessed.
"""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a server is for."""

    PREFILL = "prefill"
    DECODE = "decode"


class Connector(StrEnum):
    """A kind of KV connector; MultiConnector is an ordered tuple of them."""

    NIXL = "nixl"
    OFFLOADING = "offloading"


@dataclass(frozen=True, slots=True)
class KVGeometry:
    """The shape of one token's KV: one full-attention group, the same in every layer."""

    layers: int
    kv_heads: int
    """Of the whole model, before tensor parallelism divides them."""
    head_size: int
    """Elements per head of K."""
    head_size_v: int
    """Elements per head of V."""
    dtype_bytes: int

    def block_bytes(self, block_size: int) -> int:
        """Bytes of one block of ``block_size`` tokens over all layers, K and V."""
        return self.layers * block_size * self.kv_heads * (self.head_size + self.head_size_v) * self.dtype_bytes


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the deployment."""

    name: str
    """``prefill-0``, ``decode-1``: how history and report call it."""
    role: Role
    url: str
    block_size: int | None = None
    """Tokens per block, as the engine's scheduler uses them (``vllm:cache_config_info``)."""
    num_blocks: int | None = None
    """Blocks in the pool, the null block included (``vllm:cache_config_info``: num_gpu_blocks)."""
    prefix_caching: bool | None = None
    version: str | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    """Tokens of one engine step: a longer prompt is prefilled in chunks (``/server_info``)."""
    ranks: int | None = None
    """Workers that share the model's KV heads (tensor parallelism; ``/server_info``)."""
    pid: int | None = None
    """Of the process that the harness launched; None when attached."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The whole of it, as result.json and the oracle see it."""

    servers: tuple[Server, ...]
    proxy_url: str | None
    model: str
    """The name that requests carry."""
    model_path: str | None = None
    """Where its configuration was read: a directory or a hub name."""
    vocab_size: int | None = None
    special_token_ids: tuple[int, ...] = ()
    kv_dtype: str | None = None
    """Of the KV cache, as the engine resolved it (``float32``, ``bfloat16``, ``fp8``); None when it does not say."""
    geometry: KVGeometry | None = None
    connectors: tuple[Connector, ...] | None = None
    """In MultiConnector's order; None when attached and the servers do not say."""
    offload_block_size: int | None = None
    """Tokens per chunk of the offload tier."""
    offload_blocks: int | None = None
    """Chunks that the offload tier holds."""
    offload_bytes: int | None = None
    """Host memory that each server's offload tier was given, bytes (``cpu_bytes_to_use``)."""
    offload_prompt_only: bool | None = None
    """Whether the tier is given prompt tokens alone, never generated ones (vLLM's ``offload_prompt_only``)."""
    own_proxy: bool | None = None
    """Whether the proxy is the harness's own, so that what it asks of prefill servers is known; None: there is none,
    or nobody looked."""
    launched: bool = False
    engine: str = "vllm"
    device: str | None = None

    def of(self, role: Role) -> tuple[Server, ...]:
        """The servers of one role, in order."""
        return tuple(server for server in self.servers if server.role is role)
