"""The deployment to be tested, as the user specified it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector, Role


@dataclass(frozen=True, slots=True)
class Attachment:
    """The addresses of a running deployment."""

    prefill_urls: tuple[str, ...]
    decode_urls: tuple[str, ...]
    base_url: str | None
    """The proxy; None: the harness starts its own proxy for the servers."""


@dataclass(frozen=True, slots=True)
class Target:
    """Attached to, or launched if ``attachment`` is None. The harness chooses the other fields that are None."""

    attachment: Attachment | None
    model: str | None
    """A path or a hub name. None: the canary when launching, the model that the servers report when attaching."""
    served_model_name: str | None
    kv_cache_dtype: str | None
    """The dtype of the servers' KV cache as the user gave it; None: as the servers report it."""
    headers: Mapping[str, str]
    connectors: tuple[Connector, ...]
    prefill: int
    decode: int
    block_size: int | None
    num_gpu_blocks: int | None
    offload_bytes: int
    engine_args: tuple[str, ...]
    role_args: Mapping[Role, tuple[str, ...]]
    engine_pythons: Mapping[Role, str | None]
    device: str
    ports: Mapping[str, int]
    ready_timeout: float
    num_warmups: int | None
    nixl_config: Mapping[str, Any] = field(default_factory=dict)
    """The NIXL connector's ``kv_connector_extra_config``."""
    engine: str = "vllm"
    """The engine to launch: ``vllm``, or ``sim`` for the simulated pair."""
