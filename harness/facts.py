"""Facts: what is known about the deployment under test. Read once, stored with the run, used by oracle and checkers.

A fact that could not be learned is None, never a guess. Every check that needs it is ``unknown``.
"""

import mmap
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final


class Role(StrEnum):
    """A server's part in the deployment."""

    PREFILL = "prefill"
    DECODE = "decode"


class Connector(StrEnum):
    """A kind of KV connector; MultiConnector is an ordered tuple of them."""

    NIXL = "nixl"
    OFFLOADING = "offloading"


ELEMENT_BYTES: Final = {
    **dict.fromkeys(("float32", "float"), 4),
    **dict.fromkeys(("float16", "half", "bfloat16"), 2),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), 1),
}
"""Bytes of one cached element, by vLLM's name of its type."""


@dataclass(frozen=True, slots=True)
class KVGeometry:
    """The shape of one token's KV, for models with one full-attention group that is the same in every layer."""

    layers: int
    kv_heads: int
    """KV heads of the whole model, before tensor parallelism divides them."""
    head_size: int
    """Elements per head of K."""
    head_size_v: int
    """Elements per head of V."""
    dtype_bytes: int

    def block_bytes(self, block_size: int) -> int:
        """Bytes of K and V in one block of ``block_size`` tokens over all layers."""
        return self.layers * block_size * self.kv_heads * (self.head_size + self.head_size_v) * self.dtype_bytes


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the deployment."""

    name: str
    """Its name in history and reports: ``prefill-0``, ``decode-1``."""
    role: Role
    url: str
    block_size: int | None = None
    """Tokens per block, as the engine's scheduler uses them (``vllm:cache_config_info``)."""
    num_blocks: int | None = None
    """Blocks in the pool, including the null block (``vllm:cache_config_info``: num_gpu_blocks)."""
    prefix_caching: bool | None = None
    version: str | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    """Tokens of one engine step: a longer prompt is prefilled in chunks (``/server_info``)."""
    ranks: int | None = None
    """Workers that share the model's KV heads (tensor parallelism; ``/server_info``)."""
    device: str | None = None
    """The device of its configuration: ``cpu``, ``cuda`` (``/server_info``)."""
    pid: int | None = None
    """Process id, if the harness launched the server."""
    model: str | None = None
    """The name under which it serves its model (``/v1/models``)."""
    model_path: str | None = None
    """The directory or hub name that it loaded its model from (``/v1/models``: root)."""
    kv_dtype: str | None = None
    """Element type of its KV cache, as the engine resolved it (``float32``, ``bfloat16``, ``fp8``)."""
    connectors: tuple[Connector, ...] | None = None
    """Its connectors that the harness knows, in MultiConnector's order."""
    connectors_listed: bool = True
    """Whether the server listed its connectors. If not, they were found by their counters in ``/metrics``: there may be
    more connectors, and their order is not known."""
    unknown_connectors: tuple[str, ...] = ()
    """Class names of its connectors that the harness does not know, in order."""
    asked_before_unknown: int = 0
    """How many of ``connectors`` MultiConnector asks before the first of ``unknown_connectors``."""
    offload_block_size: int | None = None
    """Tokens per chunk of its offload tier."""
    offload_blocks: int | None = None
    """Capacity of its offload tier in chunks."""
    offload_bytes: int | None = None
    """Host memory of its offload tier, bytes (``cpu_bytes_to_use``)."""
    offload_prompt_only: bool | None = None
    """Whether the tier stores prompt tokens only, never generated ones (vLLM's ``offload_prompt_only``)."""
    lease: float | None = None
    """Seconds for which it keeps a prompt's blocks for decode servers to fetch, unless they ask for more."""
    engines: int = 1
    """Data-parallel engines behind the URL, each with its own caches and its own pool of ``num_blocks`` (counted by the
    ``engine`` labels in ``/metrics``)."""

    @property
    def lease_of_blocks(self) -> float | None:
        """Seconds for which blocks may be held when nobody fetches them: 0 if it holds none for others; None: unknown.

        Decode servers hold none: their requests end with the client's answer.
        """
        if self.role is Role.DECODE or self.has(Connector.NIXL) is False:
            return 0.0
        return self.lease

    @property
    def connector_names(self) -> tuple[str, ...] | None:
        """The server's connectors in order: known ones by kind, unknown ones by class name."""
        if self.connectors is None:
            return self.unknown_connectors or None
        known = tuple(connector.value for connector in self.connectors)
        return known[: self.asked_before_unknown] + self.unknown_connectors + known[self.asked_before_unknown :]

    def has(self, connector: Connector) -> bool | None:
        """Whether the server has this connector; None if unknown: a connector of unknown name may be of this kind."""
        if connector in (self.connectors or ()):
            return True
        return None if self.connectors is None or self.unknown_connectors else False


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment under test."""

    servers: tuple[Server, ...]
    proxy_url: str | None
    model: str
    """The model's name in requests."""
    model_path: str | None = None
    """The directory or hub name that the model's configuration was read from."""
    vocab_size: int | None = None
    vocab_is_whole: bool = True
    """Whether ``vocab_size`` was read from the model's files. If not, the vocabulary has at least that many tokens,
    which suffices to make prompts, and ``special_token_ids`` only covers the ids where special tokens usually are."""
    end_tokens_complete: bool = True
    """Whether ``special_token_ids`` holds all tokens that end an answer. If not, the servers may have read more of them
    from files that are not on this machine (generation_config.json)."""
    special_token_ids: tuple[int, ...] = ()
    """Tokens that are never put into prompts."""
    geometry: KVGeometry | None = None
    """For servers without a ``kv_dtype``; see :meth:`geometry_of`."""
    geometry_unknown: str = ""
    """Why the model's configuration gives no geometry: "it caches a latent (MLA) ..."."""
    cache_rules_unknown: str = ""
    """Why the model's caches may not follow the rules of one group of full-attention layers; empty if they do.
    Otherwise a prefix cache may find less than its blocks hold, and prefill may leave a prompt's last token to
    decode."""
    own_proxy: bool | None = None
    """Whether the proxy is the harness's own, whose requests to prefill servers are known; None: there is no proxy, or
    this was not checked."""
    launched: bool = False
    engine: str = "vllm"
    device: str | None = None

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that may end an answer; empty if unknown."""
        return self.special_token_ids if self.vocab_is_whole else ()

    def of(self, role: Role) -> tuple[Server, ...]:
        """The servers of one role, in order."""
        return tuple(server for server in self.servers if server.role is role)

    def named(self, name: str) -> tuple[Server, ...]:
        """The servers whose counters stand under ``name``: one server's name, or a role for all servers of the role."""
        return tuple(server for server in self.servers if name in (server.name, server.role))

    def has(self, connector: Connector, role: Role | None = None) -> bool | None:
        """Whether any server (of this role) has the connector; None if unknown."""
        found = [server.has(connector) for server in (self.servers if role is None else self.of(role))]
        if True in found:
            return True
        return None if None in found else False

    def geometry_of(self, server: Server) -> KVGeometry | None:
        """The shape of one token's KV on this server; None if unknown."""
        if self.geometry is None or server.kv_dtype is None:
            return self.geometry
        size = ELEMENT_BYTES.get(server.kv_dtype)
        return None if size is None else replace(self.geometry, dtype_bytes=size)

    def offload_blocks_of(self, server: Server) -> int | None:
        """Chunks of ``offload_block_size`` tokens that the server's offload tier holds; None if that is not known."""
        geometry, memory, chunk = self.geometry_of(server), server.offload_bytes, server.offload_block_size
        if server.offload_blocks is not None or geometry is None or memory is None or chunk is None:
            return server.offload_blocks
        # vLLM aligns chunks to memory pages.
        size = -(-geometry.block_bytes(chunk) // mmap.PAGESIZE) * mmap.PAGESIZE
        return memory // size if size else None

    def unknown_connectors(self) -> dict[str, tuple[str, ...]]:
        """The connectors that the harness does not know, by the server's name."""
        return {one.name: one.unknown_connectors for one in self.servers if one.unknown_connectors}

    def with_servers(self, **changes: Any) -> "Deployment":
        """The same deployment with these fields changed on every server."""
        return replace(self, servers=tuple(replace(server, **changes) for server in self.servers))


def alike(values: Iterable[object]) -> str:
    """The distinct values in the servers' order, with slashes between: ``16``, or ``16/32`` if servers differ."""
    return "/".join(dict.fromkeys("unknown" if value is None else str(value) for value in values)) or "unknown"


def listed(servers: Sequence[Server], url: str | None) -> bool:
    """Whether ``url``, as a proxy reports it, is that of one of ``servers``; False for None."""
    place = _place(url) if url else None
    return place is not None and place in {_place(server.url) for server in servers}


def serving(servers: Sequence[Server], url: str | None) -> int | None:
    """Index of the server in ``servers`` (all of one role) that a proxy reports as ``url``; None if it is not clear.

    A single server is always index 0, whatever the proxy reports. Credentials in URLs are ignored: a proxy reports
    none.
    """
    if len(servers) == 1:
        return 0
    place = _place(url) if url else None
    found = [index for index, server in enumerate(servers) if place is not None and _place(server.url) == place]
    return found[0] if len(found) == 1 else None


_URL = re.compile(r"(?:(\w+)://)?(?:[^/]*@)?(\[[^\]/]*\]|[^:/]*)(?::([0-9]+))?(/.*)?")
_PORTS = {"http": "80", "https": "443"}


def _place(url: str) -> tuple[str, str, str] | None:
    """Host, port and path of a URL; None if it is not a URL."""
    parts = _URL.fullmatch(url.strip())
    if parts is None:
        return None
    scheme, host, port, path = (part or "" for part in parts.groups())
    host = host.lower()
    place = "127.0.0.1" if host == "localhost" else host
    return place, port or _PORTS.get(scheme or "http", ""), path.rstrip("/").removesuffix("/v1")
