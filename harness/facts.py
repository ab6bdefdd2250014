"""What is known about the deployment under test. Read once, stored with the run, used by oracle and checkers.

A fact that could not be learned is None, and whatever needs it is ``unknown``; it is never guessed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final


class Role(StrEnum):
    """What a server is for."""

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
"""Bytes of one cached element, by the name that vLLM gives its type."""


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
    device: str | None = None
    """What it runs on (``cpu``, ``cuda``), as its configuration says (``/server_info``)."""
    pid: int | None = None
    """Of the process that the harness launched; None when attached."""
    model: str | None = None
    """The name under which it serves its model (``/v1/models``)."""
    model_path: str | None = None
    """Where it says that the model came from: a directory or a hub name (``/v1/models``: root)."""
    kv_dtype: str | None = None
    """Of its KV cache, as the engine resolved it (``float32``, ``bfloat16``, ``fp8``); None when it does not say."""
    connectors: tuple[Connector, ...] | None = None
    """Those of its connectors that the harness knows, in MultiConnector's order; None when nothing tells."""
    connectors_listed: bool = True
    """Whether the server listed its connectors. Else they were found by what they expose in ``/metrics``: there are at
    least these, and their order is not known."""
    unknown_connectors: tuple[str, ...] = ()
    """Class names of its connectors that the harness does not know, in order."""
    asked_before_unknown: int = 0
    """How many of ``connectors`` stand before the first of ``unknown_connectors``, and so are asked before it."""
    offload_block_size: int | None = None
    """Tokens per chunk of its offload tier."""
    offload_blocks: int | None = None
    """Chunks that its offload tier holds."""
    offload_bytes: int | None = None
    """Host memory that its offload tier was given, bytes (``cpu_bytes_to_use``)."""
    offload_prompt_only: bool | None = None
    """Whether the tier is given prompt tokens alone, never generated ones (vLLM's ``offload_prompt_only``)."""

    @property
    def connector_names(self) -> tuple[str, ...] | None:
        """Its connectors in order, by kind or, where the harness does not know it, by class; None when not told."""
        if self.connectors is None:
            return self.unknown_connectors or None
        known = tuple(connector.value for connector in self.connectors)
        return known[: self.asked_before_unknown] + self.unknown_connectors + known[self.asked_before_unknown :]

    def has(self, connector: Connector) -> bool | None:
        """Whether it has this connector; None when that is not known: one that is not known may be of the kind."""
        if connector in (self.connectors or ()):
            return True
        return None if self.connectors is None or self.unknown_connectors else False

    engines: int = 1
    """Data-parallel engines behind the URL, each with a block pool of ``num_blocks`` and caches of its own (distinct
    ``engine`` labels in ``/metrics``)."""


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
    vocab_is_whole: bool = True
    """Whether the vocabulary ends there, as its files say; else it has so many tokens at least, which is enough to make
    prompts of, and ``special_token_ids`` only leave out where special tokens usually are."""
    end_tokens_complete: bool = True
    """Whether all tokens that end an answer are among ``special_token_ids``; else the servers may have read others in
    files that are not here (generation_config.json)."""
    special_token_ids: tuple[int, ...] = ()
    """What prompts are not made of."""
    geometry: KVGeometry | None = None
    """With the type of element that a server has which does not tell its own; see :meth:`geometry_of`."""
    geometry_unknown: str = ""
    """Why there is no geometry, where the model's configuration says it: "it caches a latent (MLA) ..."."""
    cache_rules_unknown: str = ""
    """Why the model's caches may follow other rules than those of one group of full-attention layers; empty where they
    follow these. Then a prefix cache may find less than its blocks hold, and prefill may leave a prompt's last token
    to decode."""
    own_proxy: bool | None = None
    """Whether the proxy is the harness's own, so that what it asks of prefill servers is known; None: there is none,
    or nobody looked."""
    launched: bool = False
    engine: str = "vllm"
    device: str | None = None

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that may end an answer; empty where they are not known."""
        return self.special_token_ids if self.vocab_is_whole else ()

    def of(self, role: Role) -> tuple[Server, ...]:
        """The servers of one role, in order."""
        return tuple(server for server in self.servers if server.role is role)

    def named(self, name: str) -> tuple[Server, ...]:
        """The servers whose counters stand under ``name``: one server's name, or a role for all servers of the role."""
        return tuple(server for server in self.servers if name in (server.name, server.role))

    def has(self, connector: Connector, role: Role | None = None) -> bool | None:
        """Whether any server (of this role) has the connector; None when none is known to, and one may have it."""
        found = [server.has(connector) for server in (self.servers if role is None else self.of(role))]
        if True in found:
            return True
        return None if None in found else False

    def geometry_of(self, server: Server) -> KVGeometry | None:
        """The shape of one token's KV on this server; None when it is not known."""
        if self.geometry is None or server.kv_dtype is None:
            return self.geometry
        size = ELEMENT_BYTES.get(server.kv_dtype)
        return None if size is None else replace(self.geometry, dtype_bytes=size)

    def unknown_connectors(self) -> dict[str, tuple[str, ...]]:
        """The connectors that the harness does not know, by the name of the server that has them."""
        return {one.name: one.unknown_connectors for one in self.servers if one.unknown_connectors}

    def with_servers(self, **changes: Any) -> "Deployment":
        """The same deployment with these fields on every server."""
        return replace(self, servers=tuple(replace(server, **changes) for server in self.servers))


def alike(values: Iterable[object]) -> str:
    """The one value, or each with a slash between where servers differ, in the servers' order."""
    return "/".join(dict.fromkeys("unknown" if value is None else str(value) for value in values)) or "unknown"


def listed(servers: Sequence[Server], url: str | None) -> bool:
    """Whether a proxy that names ``url`` means one of ``servers``; False where it names none."""
    place = _place(url) if url else None
    return place is not None and place in {_place(server.url) for server in servers}


def serving(servers: Sequence[Server], url: str | None) -> int | None:
    """Which of ``servers`` a proxy means by ``url``; None where it does not say, or names none of them alone.

    The only server of its role is it, whatever the proxy calls it. Credentials do not count, for a proxy tells none.
    """
    if len(servers) == 1:
        return 0
    meant = _place(url) if url else None
    found = [index for index, server in enumerate(servers) if meant is not None and _place(server.url) == meant]
    return found[0] if len(found) == 1 else None


_URL = re.compile(r"(?:(\w+)://)?(?:[^/]*@)?(\[[^\]/]*\]|[^:/]*)(?::([0-9]+))?(/.*)?")
_PORTS = {"http": "80", "https": "443"}


def _place(url: str) -> tuple[str, str, str] | None:
    """Host, port and path of a URL; None where it is none."""
    parts = _URL.fullmatch(url.strip())
    if parts is None:
        return None
    scheme, host, port, path = (part or "" for part in parts.groups())
    host = host.lower()
    place = "127.0.0.1" if host == "localhost" else host
    return place, port or _PORTS.get(scheme or "http", ""), path.rstrip("/").removesuffix("/v1")
