"""What a running server says about itself over HTTP.

Where each fact comes from:

- ``/metrics``: block size, number of blocks and prefix caching, as labels of ``vllm:cache_config_info``; which kinds
  of connector there are, since each brings its families (declared from the start, with or without samples);
- ``/version``: the engine's version;
- ``/v1/models``: the served name, where the model came from, and the longest context;
- ``/server_info``: the connectors' order and the offload tier's configuration. Only with ``VLLM_SERVER_DEV_MODE=1``.

A server that cannot be reached is the user's to put right: UsageError. A fact it does not tell is None.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from harness.errors import UsageError
from harness.facts import Connector, Deployment, Role, Server
from harness.observe.exposition import Exposition, parse

TIMEOUT = 15.0
"""Seconds for one question: a server under load answers late, a wrong address not at all."""

_CACHE = "vllm:cache_config_info"
_NIXL = "vllm:nixl_bytes_transferred_sum"
_OFFLOAD = "vllm:kv_offload_total_bytes_total"
_OFFLOAD_NEWER = "vllm:kv_offload_store_bytes_total"
_PER_ENGINE = frozenset({"vllm:num_requests_running", "vllm:prompt_tokens_total"})
_WANTED = frozenset({_CACHE, _NIXL, _OFFLOAD, _OFFLOAD_NEWER}) | _PER_ENGINE
_KINDS = {"NixlConnector": Connector.NIXL, "OffloadingConnector": Connector.OFFLOADING}


@dataclass(frozen=True, slots=True)
class Learned:
    """One server and what it told of the model and its connectors."""

    server: Server
    model: str
    model_path: str | None
    connectors: tuple[Connector, ...] | None
    """In MultiConnector's order if ``/server_info`` told; else as found in ``/metrics``, NIXL first."""
    offload_block_size: int | None
    """Tokens per chunk of the offload tier; None when not told."""
    offload_bytes: int | None
    """Host memory that the tier was given."""
    offload_prompt_only: bool | None
    kv_dtype: str | None


async def learn_deployment(
    session: aiohttp.ClientSession,
    *,
    prefill_urls: Sequence[str],
    decode_urls: Sequence[str],
    proxy_url: str | None,
) -> Deployment:
    """Ask every server; raises UsageError naming the first that does not answer as vLLM does.

    Geometry, vocabulary and device are not told over HTTP; the caller adds them from the model's configuration.
    """
    wanted = ((Role.PREFILL, prefill_urls), (Role.DECODE, decode_urls))
    learned = await asyncio.gather(
        *(
            learn_server(session, name=f"{role}-{index}", role=role, url=url)
            for role, urls in wanted
            for index, url in enumerate(urls)
        )
    )
    first = learned[0] if learned else None
    return Deployment(
        servers=tuple(one.server for one in learned),
        proxy_url=proxy_url,
        model=first.model if first else "",
        model_path=first.model_path if first else None,
        connectors=first.connectors if first else None,
        offload_block_size=first.offload_block_size if first else None,
        offload_bytes=first.offload_bytes if first else None,
        offload_prompt_only=first.offload_prompt_only if first else None,
        kv_dtype=first.kv_dtype if first else None,
    )


async def learn_server(session: aiohttp.ClientSession, *, name: str, role: Role, url: str) -> Learned:
    """Ask one server; ``url`` without a trailing slash or ``/v1``. UsageError when it does not answer as vLLM does."""
    asker = _Asker(session, role, url.rstrip("/"))
    beside = asyncio.gather(asker.json_or_none("/version"), asker.server_info())
    try:
        metrics, models = await asker.metrics(), await asker.json("/v1/models")
    finally:
        version, info = await beside  # neither raises; nothing may be left in flight when the session closes
    cache = _cache_labels(metrics)
    model = _first_model(models, asker)
    kinds = _connectors(info)
    tier = dict(kinds).get(Connector.OFFLOADING, {})
    server = Server(
        name=name,
        role=role,
        url=asker.url,
        block_size=_whole(cache.get("block_size")),
        num_blocks=_whole(cache.get("num_gpu_blocks")),
        prefix_caching={"True": True, "False": False}.get(cache.get("enable_prefix_caching", "")),
        version=(version or {}).get("version"),
        max_model_len=_whole(model.get("max_model_len")),
        max_num_batched_tokens=_step_tokens(info),
        ranks=_ranks(info),
        engines=_engines(metrics),
    )
    return Learned(
        server=server,
        model=str(model["id"]),
        model_path=model.get("root"),
        connectors=tuple(kind for kind, _ in kinds) or _exposed_connectors(metrics),
        offload_block_size=_chunk_size(tier, server.block_size) if tier else None,
        offload_bytes=_whole(tier.get("cpu_bytes_to_use")),
        # vLLM 0.32's default; a server that tells its configuration tells only what was set.
        offload_prompt_only=bool(tier.get("offload_prompt_only", True)) if tier else None,
        kv_dtype=_kv_dtype(info),
    )


@dataclass(frozen=True, slots=True)
class _Asker:
    session: aiohttp.ClientSession
    role: Role
    url: str

    async def text(self, path: str) -> str:
        """The body of a GET; UsageError when there is none to be had."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            async with self.session.get(self.url + path, timeout=timeout) as response:
                response.raise_for_status()
                return await response.text(encoding="utf-8", errors="replace")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.unusable(path, str(error) or type(error).__name__) from error

    async def json(self, path: str) -> Any:
        text = await self.text(path)
        try:
            return json.loads(text)
        except ValueError as error:
            raise self.unusable(path, "its answer is no JSON") from error

    async def json_or_none(self, path: str) -> Mapping[str, Any] | None:
        try:
            answer = await self.json(path)
        except UsageError:
            return None
        return answer if isinstance(answer, dict) else None

    async def metrics(self) -> Exposition:
        text = await self.text("/metrics")
        try:
            exposition = parse(text, _WANTED)
        except ValueError as error:
            raise self.unusable("/metrics", f"what it exposes cannot be parsed: {error}") from error
        if not any(sample.name == _CACHE for sample in exposition.samples):
            raise self.unusable("/metrics", f"it exposes no {_CACHE}, as a vLLM server does")
        return exposition

    async def server_info(self) -> Mapping[str, Any] | None:
        answer = await self.json_or_none("/server_info?config_format=json")
        config = (answer or {}).get("vllm_config")
        return config if isinstance(config, dict) else None

    def unusable(self, path: str, cause: str) -> UsageError:
        flag = f"--{self.role}-url"
        return UsageError(
            f"The {self.role} server at {self.url} did not answer GET {path} as a vLLM server does: {cause}. "
            f"Check that it is up and reachable from here, and that {flag} is the address of the vLLM server itself, "
            f"not of the proxy (try: curl {self.url}/metrics)."
        )


def _cache_labels(metrics: Exposition) -> Mapping[str, str]:
    return next(sample.labels for sample in metrics.samples if sample.name == _CACHE)


def _engines(metrics: Exposition) -> int:
    """Data-parallel engines: each has its samples in every family, under a label of its own."""
    labels = {sample.labels["engine"] for sample in metrics.samples if "engine" in sample.labels}
    return max(len(labels), 1)


def _first_model(models: Any, asker: _Asker) -> Mapping[str, Any]:
    # LoRA adapters are listed too, with their parent named.
    listed = models.get("data") if isinstance(models, dict) else None
    for model in listed or ():
        if isinstance(model, dict) and "id" in model and not model.get("parent"):
            return model
    raise asker.unusable("/v1/models", "it lists no model")


def _connectors(config: Mapping[str, Any] | None) -> list[tuple[Connector, Mapping[str, Any]]]:
    """Connectors in order with their extra configuration, from the engine's own; empty when not told."""
    transfer = (config or {}).get("kv_transfer_config")
    if not isinstance(transfer, dict):
        return []
    return list(_flattened(transfer))


def _kv_dtype(config: Mapping[str, Any] | None) -> str | None:
    """``cache_dtype``, or the model's own where that is auto: what the engine resolved, not what a file says."""
    if not config:
        return None
    cache = config.get("cache_config", {}).get("cache_dtype", "auto")
    model = str(config.get("model_config", {}).get("dtype", "")).removeprefix("torch.")
    return (model if cache == "auto" else cache) or None


def _step_tokens(config: Mapping[str, Any] | None) -> int | None:
    return _whole(((config or {}).get("scheduler_config") or {}).get("max_num_batched_tokens"))


def _ranks(config: Mapping[str, Any] | None) -> int | None:
    return _whole(((config or {}).get("parallel_config") or {}).get("tensor_parallel_size"))


def _flattened(transfer: Mapping[str, Any]) -> Iterator[tuple[Connector, Mapping[str, Any]]]:
    extra = transfer.get("kv_connector_extra_config") or {}
    name = transfer.get("kv_connector")
    if name == "MultiConnector":
        for child in extra.get("connectors", ()):
            yield from _flattened(child)
    elif name in _KINDS:
        yield _KINDS[name], extra


def _exposed_connectors(metrics: Exposition) -> tuple[Connector, ...] | None:
    names = {sample.name for sample in metrics.samples} | set(metrics.declared)
    offloads = not names.isdisjoint({_OFFLOAD, _OFFLOAD_NEWER})
    found = ((Connector.NIXL, _NIXL in names), (Connector.OFFLOADING, offloads))
    return tuple(kind for kind, there in found if there) or None


def _chunk_size(tier: Mapping[str, Any], block_size: int | None) -> int | None:
    if "block_size" in tier:
        return _whole(tier["block_size"])
    return None if block_size is None else block_size * int(tier.get("blocks_per_chunk", 1))


def _whole(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
