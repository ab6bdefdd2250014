"""What is to be tested, as the user named it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector, Role


@dataclass(frozen=True, slots=True)
class Attachment:
    """A deployment that is running already."""

    prefill_urls: tuple[str, ...]
    decode_urls: tuple[str, ...]
    base_url: str | None
    """The proxy; None: the harness puts its own in front of the servers."""


@dataclass(frozen=True, slots=True)
class Target:
    """Attached to if ``attachment`` is there, launched otherwise. None: the harness chooses."""

    attachment: Attachment | None
    model: str | None
    """A path or a hub name. None: the canary when launching, what the servers name when attaching."""
    served_model_name: str | None
    kv_cache_dtype: str | None
    """What the user says of the servers' KV cache; None: what they say of it themselves."""
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
    """What the NIXL connector's ``kv_connector_extra_config`` holds."""
    engine: str = "vllm"
    """What is launched: ``vllm``, or ``sim`` for the simulated pair."""
