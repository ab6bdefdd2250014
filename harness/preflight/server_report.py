"""What each server reports about itself, as far as the checks need it. Only GET requests, which change nothing.

``/v1/models``           served names, and where the weights were loaded from
``/metrics``             when the process started, and whether it has NIXL's metrics
``/server_info``         connectors with their roles, dtypes, sizes (only with ``VLLM_SERVER_DEV_MODE=1``)
``/reset_prefix_cache``  whether caches can be emptied: a GET then gets 405, else 404
``/proxy/status``        exists on the harness's own proxy, and on no server

A fact that is not reported is None, and stops no run. ``observe.server_info`` has already refused servers that cannot
be read at all; here such a server reports nothing.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from harness.facts import Server
from harness.observe.bodies import get_text
from harness.observe.exposition import parse

_SECONDS = 15.0
_START = "process_start_time_seconds"
_NIXL = "vllm:nixl_bytes_transferred_sum"
Json = Mapping[str, Any]

LOCAL_CONNECTORS = frozenset({"OffloadingConnector", "SimpleCPUOffloadConnector"})
"""Connectors that store KV beside one server, and transfer none to another."""


@dataclass(frozen=True, slots=True)
class ConfiguredConnector:
    """A connector in a server's configuration."""

    name: str
    role: str | None
    """``kv_producer``, ``kv_consumer`` or ``kv_both``."""
    extra: Json


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What one server reports about itself; None: not reported."""

    server: Server
    models: Mapping[str, str | None] = field(default_factory=dict)
    """Where each served model was loaded from, by name; adapters, which name a parent, are left out."""
    names: tuple[str, ...] = ()
    """All names that a request may carry, adapters included."""
    connectors: tuple[ConfiguredConnector, ...] | None = None
    """MultiConnector's children in its order; empty: no connector."""
    nixl_metrics: bool | None = None
    """Whether the server has NIXL's metrics."""
    kv_dtype: str | None = None
    model_dtype: str | None = None
    layout: str | None = None
    ranks: int | None = None
    engine_id: str | None = None
    """No two engines have the same id."""
    started: float | None = None
    """Seconds since 1970."""
    generation: Json | None = None
    """The operator's override of the model's generation defaults."""
    generation_source: str | None = None
    """``auto``: the model's file; ``vllm``: neutral values; else a directory."""
    can_reset: bool | None = None
    """Whether the server's caches can be emptied."""
    is_proxy: bool = False
    """Whether the server answers like the harness's own proxy."""

    @property
    def name(self) -> str:
        """``prefill-0``."""
        return self.server.name

    @property
    def can_transfer(self) -> bool | None:
        """Whether the server has a connector that may transfer KV to or from another server; None: not known."""
        if self.connectors is not None:
            return any(connector.name not in LOCAL_CONNECTORS for connector in self.connectors)
        # Without NIXL's metrics the server may still have a connector that the harness does not know.
        return True if self.nixl_metrics else None


async def read_reports(session: aiohttp.ClientSession, servers: Sequence[Server]) -> list[ServerReport]:
    """Ask all servers; the reports are in the servers' order. Never raises for a server's answer."""
    return list(await asyncio.gather(*(_read_report(session, server) for server in servers)))


@dataclass(frozen=True, slots=True)
class Answers:
    """A server's answers; None for one that is missing or has an unexpected format."""

    models: Json | None = None
    info: Json | None = None
    metrics: str | None = None
    reset: int | None = None
    """The status of ``GET /reset_prefix_cache``."""
    status: Json | None = None


async def _read_report(session: aiohttp.ClientSession, server: Server) -> ServerReport:
    models, info, (status, metrics), (reset, _), proxy = await asyncio.gather(
        _json(session, f"{server.url}/v1/models"),
        _json(session, f"{server.url}/server_info?config_format=json"),
        _get(session, f"{server.url}/metrics"),
        _get(session, f"{server.url}/reset_prefix_cache"),
        _json(session, f"{server.url}/proxy/status"),
    )
    return report_of(server, Answers(models, info, metrics if status == 200 else None, reset, proxy))


def report_of(server: Server, answers: Answers) -> ServerReport:
    """The report in a server's answers; a part in another format than vLLM's counts as not reported."""
    info = answers.info
    config = _part(info, "vllm_config")
    model, cache = _part(config, "model_config"), _part(config, "cache_config")
    listed = list(_listed(answers.models))
    nixl_metrics, started = _read_metrics(answers.metrics)
    model_dtype = str(model.get("dtype") or "").removeprefix("torch.") or None
    cache_dtype = str(cache.get("cache_dtype") or "auto")
    return ServerReport(
        server=server,
        models={str(one["id"]): _text_or_none(one.get("root")) for one in listed if not one.get("parent")},
        names=tuple(str(one["id"]) for one in listed),
        connectors=_all_connectors(config),
        nixl_metrics=nixl_metrics,
        kv_dtype=(model_dtype if cache_dtype == "auto" else cache_dtype) if config else None,
        model_dtype=model_dtype,
        layout=_text_or_none(cache.get("kv_cache_layout") or _part(info, "vllm_env").get("VLLM_KV_CACHE_LAYOUT")),
        ranks=_whole(_part(config, "parallel_config").get("tensor_parallel_size")),
        engine_id=_engine_id(config),
        started=started,
        generation=_part(model, "override_generation_config") if config else None,
        generation_source=_text_or_none(model.get("generation_config")),
        can_reset=None if answers.reset is None else answers.reset != 404,
        is_proxy=_is_our_proxy(answers.status),
    )


def _is_our_proxy(status: Json | None) -> bool:
    """Whether this answer to ``GET /proxy/status`` comes from the harness's own proxy."""
    return bool(status) and all(isinstance((status or {}).get(key), list) for key in ("prefill", "decode"))


async def has_our_proxy(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether the harness's own proxy runs at this URL."""
    return _is_our_proxy(await _json(session, f"{url}/proxy/status"))


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int | None, str]:
    """Status and body; None and an empty body if the server does not answer."""
    try:
        return await get_text(session, url, _SECONDS)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None, ""


async def _json(session: aiohttp.ClientSession, url: str) -> Json | None:
    status, text = await _get(session, url)
    try:
        answer = json.loads(text) if status == 200 else None
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _part(whole: Json | None, name: str) -> Json:
    part = (whole or {}).get(name)
    return part if isinstance(part, dict) else {}


def _listed(models: Json | None) -> Iterator[Json]:
    data = (models or {}).get("data")
    for model in data if isinstance(data, list) else ():
        if isinstance(model, dict) and "id" in model:
            yield model


def _all_connectors(config: Json) -> tuple[ConfiguredConnector, ...] | None:
    """The configured connectors; None if the field is missing or has an unexpected format."""
    transfer = config.get("kv_transfer_config", ...)
    return tuple(_connectors(transfer)) if transfer is None or isinstance(transfer, dict) else None


def _connectors(transfer: object) -> Iterator[ConfiguredConnector]:
    if not isinstance(transfer, dict) or not transfer.get("kv_connector"):
        return
    extra = _part(transfer, "kv_connector_extra_config")
    children = extra.get("connectors")
    if transfer["kv_connector"] == "MultiConnector" and isinstance(children, list):
        for child in children:
            yield from _connectors(child)
        return
    yield ConfiguredConnector(str(transfer["kv_connector"]), _text_or_none(transfer.get("kv_role")), extra)


def _read_metrics(metrics: str | None) -> tuple[bool | None, float | None]:
    """Whether there are NIXL's metrics, and when the process started."""
    if metrics is None:
        return None, None
    try:
        exposition = parse(metrics, frozenset({_START, _NIXL}))
    except ValueError:
        return None, None
    names = {sample.name for sample in exposition.samples} | set(exposition.declared)
    return _NIXL in names, next((sample.value for sample in exposition.samples if sample.name == _START), None)


def _engine_id(config: Json) -> str | None:
    """Both ids together, since an operator may give two engines the same value for one of them."""
    engine, instance = _part(config, "kv_transfer_config").get("engine_id"), config.get("instance_id")
    return f"{instance}/{engine}" if instance else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return value if type(value) is int else None
