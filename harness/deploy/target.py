"""The deployment to be tested, as the user names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector, Role

OFFLOAD_BYTES = 256 * 1024 * 1024
"""The offload tier of each server: 1,024 chunks of the canary's blocks. On a CPU, all of it is committed at start."""

POLICIES = ("fail", "recompute")
"""vLLM's ``kv_load_failure_policy``."""

CONNECTORS = {
    "nixl": (Connector.NIXL,),
    "offloading": (Connector.OFFLOADING,),
    "multi": (Connector.NIXL, Connector.OFFLOADING),
    "nixl,offloading": (Connector.NIXL, Connector.OFFLOADING),
    "offloading,nixl": (Connector.OFFLOADING, Connector.NIXL),
}
"""The connectors of a launched deployment, by the name that the user gives."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A deployment that is already running."""

    prefill_urls: tuple[str, ...]
    decode_urls: tuple[str, ...]
    base_url: str | None = None
    """The proxy's URL; None: the harness puts its own proxy in front of the servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The user's choices. None: the harness chooses."""

    attachment: Attachment | None = None
    """None: the deployment is launched."""
    model: str | None = None
    """A path or a hub name. None: the canary when launching, the model that the servers name when attaching."""
    served_model_name: str | None = None
    kv_cache_dtype: str | None = None
    """The type of the servers' KV cache according to the user; None: as the servers report it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    connectors: tuple[Connector, ...] = CONNECTORS["multi"]
    prefill: int = 1
    decode: int = 1
    block_size: int | None = None
    num_gpu_blocks: int | None = None
    offload_bytes: int = OFFLOAD_BYTES
    engine_args: tuple[str, ...] = ()
    role_args: Mapping[Role, tuple[str, ...]] = field(default_factory=lambda: dict.fromkeys(Role, ()))
    engine_pythons: Mapping[Role, str | None] = field(default_factory=lambda: dict.fromkeys(Role))
    device: str = "auto"
    ports: Mapping[str, int] = field(default_factory=dict)
    ready_timeout: float = 600.0
    """Seconds."""
    num_warmups: int | None = None
    nixl_config: Mapping[str, Any] = field(default_factory=dict)
    """The NIXL connector's ``kv_connector_extra_config``."""
    kv_load_failure_policy: str | None = None
    """What decode does with a request whose KV it could not load: ``fail`` or ``recompute``; None: the engine's own
    choice (vLLM 0.32: ``fail``)."""
    engine: str = "vllm"
    """The engine to launch: ``vllm``, or ``sim`` for the simulated pair."""
    relays: tuple[str, ...] = ()
    """Where a relay of the harness stands, for faults that need one: ``decode-0`` for the link from the proxy to that
    server, ``side-channel`` for that from decode servers to NIXL on prefill-0, ``metrics-decode-0`` for readings."""
    sim_noise: str = "usual"
    """The kind of noise that a simulated pair has."""
    separate_processes: bool = False
    """Whether each simulated server has a process of its own, as faults on one of them need."""

    @property
    def transfers(self) -> bool:
        """Whether a connector transfers KV from prefill to decode servers."""
        return Connector.NIXL in self.connectors
