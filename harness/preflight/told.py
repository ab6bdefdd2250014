"""What each server says of itself, as far as the checks before a run need it. Asked with GET alone: nothing changes.

``/v1/models``       names that are served, and where the weights were loaded from
``/metrics``         when the process began, its pool, which connectors' families it has
``/server_info``     connectors with their roles, types, sizes (only with ``VLLM_SERVER_DEV_MODE=1``)
``/reset_prefix_cache``  whether it is there: a GET is answered with 405, and with 404 where it is not
``/proxy/status``    which the harness's own proxy has, and no server

What is not told is None, and stops nothing. A server that cannot be read at all was refused before, by
``observe.server_info``; here it tells nothing.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from harness.facts import Server
from harness.observe.exposition import parse

_TIMEOUT = aiohttp.ClientTimeout(total=15.0)
_START = "process_start_time_seconds"
_CACHE = "vllm:cache_config_info"
_NIXL = "vllm:nixl_bytes_transferred_sum"
_OFFLOAD = ("vllm:kv_offload_total_bytes_total", "vllm:kv_offload_store_bytes_total")
_WANTED = frozenset({_START, _CACHE, _NIXL, *_OFFLOAD})
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A connector as a server's configuration names it."""

    name: str
    role: str | None
    """``kv_producer``, ``kv_consumer`` or ``kv_both``."""
    extra: Json


@dataclass(frozen=True, slots=True)
class Told:
    """One server, in its own words."""

    server: Server
    models: Mapping[str, str | None] = field(default_factory=dict)
    """Served names and where each was loaded from; adapters, which name a parent, are not among them."""
    names: tuple[str, ...] = ()
    """Everything that may be asked for by name, adapters among it."""
    links: tuple[Link, ...] | None = None
    """MultiConnector's in its order; empty: no connector; None: not told."""
    families: frozenset[str] | None = None
    """Of the connectors' metrics, ``nixl`` and ``offloading``; None: the metrics could not be read."""
    kv_dtype: str | None = None
    model_dtype: str | None = None
    layout: str | None = None
    ranks: int | None = None
    identity: str | None = None
    """Of the engine, unlike any other's; None: not told."""
    started: float | None = None
    """Seconds since 1970."""
    generation: Json | None = None
    """What overrides the model's generation defaults; None: not told."""
    generation_source: str | None = None
    """``auto``: the model's file; ``vllm``: neutral; else a directory."""
    info: bool = False
    """Whether it answers ``/server_info``."""
    resets: bool | None = None
    """Whether its caches can be emptied."""
    is_proxy: bool = False
    """Whether it answers as the harness's own proxy does."""

    @property
    def name(self) -> str:
        """``prefill-0``."""
        return self.server.name

    @property
    def hands_over(self) -> bool | None:
        """Whether it has a connector that may carry KV to or from another server; None: not told."""
        if self.links is not None:
            return any(link.name not in STORES for link in self.links)
        # Without its configuration the families speak; of connectors that nobody knows, none may be there.
        return True if self.families and "nixl" in self.families else None


STORES = frozenset({"OffloadingConnector", "SimpleCPUOffloadConnector"})
"""Connectors that keep KV beside one server, and hand nothing to another."""


async def tell_all(session: aiohttp.ClientSession, servers: Sequence[Server]) -> list[Told]:
    """All servers asked, in order; never raises for what they answer."""
    return list(await asyncio.gather(*(_tell(session, server) for server in servers)))


@dataclass(frozen=True, slots=True)
class Answers:
    """What a server answered, as far as it did; None: it did not, or in another form."""

    models: Json | None = None
    info: Json | None = None
    metrics: str | None = None
    reset: int | None = None
    """The status of ``GET /reset_prefix_cache``."""
    status: Json | None = None


async def _tell(session: aiohttp.ClientSession, server: Server) -> Told:
    answers = await asyncio.gather(
        _json(session, f"{server.url}/v1/models"),
        _json(session, f"{server.url}/server_info?config_format=json"),
        _text(session, f"{server.url}/metrics"),
        _status(session, f"{server.url}/reset_prefix_cache"),
        _json(session, f"{server.url}/proxy/status"),
    )
    return told_of(server, Answers(*answers))


def told_of(server: Server, answers: Answers) -> Told:
    """From a server's answers; whatever has another form than vLLM's tells nothing."""
    info = answers.info
    config = _part(info, "vllm_config")
    model, cache = _part(config, "model_config"), _part(config, "cache_config")
    listed = list(_listed(answers.models))
    families, started = _exposed(answers.metrics)
    model_dtype = str(model.get("dtype") or "").removeprefix("torch.") or None
    cache_dtype = str(cache.get("cache_dtype") or "auto")
    return Told(
        server=server,
        models={str(one["id"]): _text_or_none(one.get("root")) for one in listed if not one.get("parent")},
        names=tuple(str(one["id"]) for one in listed),
        links=_all_links(config),
        families=families,
        kv_dtype=(model_dtype if cache_dtype == "auto" else cache_dtype) if config else None,
        model_dtype=model_dtype,
        layout=_text_or_none(cache.get("kv_cache_layout") or _part(info, "vllm_env").get("VLLM_KV_CACHE_LAYOUT")),
        ranks=_whole(_part(config, "parallel_config").get("tensor_parallel_size")),
        identity=_identity(config),
        started=started,
        generation=_part(model, "override_generation_config") if config else None,
        generation_source=_text_or_none(model.get("generation_config")),
        info=bool(config),
        resets=None if answers.reset is None else answers.reset != 404,
        is_proxy=is_our_proxy(answers.status),
    )


def is_our_proxy(status: Json | None) -> bool:
    """Whether an answer to ``GET /proxy/status`` is the harness's own proxy's."""
    return bool(status) and all(isinstance((status or {}).get(key), list) for key in ("prefill", "decode"))


async def has_our_proxy(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether the harness's own proxy answers there."""
    return is_our_proxy(await _json(session, f"{url}/proxy/status"))


async def _text(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(url, timeout=_TIMEOUT) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def _json(session: aiohttp.ClientSession, url: str) -> Json | None:
    text = await _text(session, url)
    try:
        answer = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


async def _status(session: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with session.get(url, timeout=_TIMEOUT) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def _part(whole: Json | None, name: str) -> Json:
    part = (whole or {}).get(name)
    return part if isinstance(part, dict) else {}


def _listed(models: Json | None) -> Iterator[Json]:
    data = (models or {}).get("data")
    for model in data if isinstance(data, list) else ():
        if isinstance(model, dict) and "id" in model:
            yield model


def _all_links(config: Json) -> tuple[Link, ...] | None:
    """None where the configuration does not name the field at all, or has something else in it."""
    transfer = config.get("kv_transfer_config", ...)
    return tuple(_links(transfer)) if transfer is None or isinstance(transfer, dict) else None


def _links(transfer: object) -> Iterator[Link]:
    if not isinstance(transfer, dict) or not transfer.get("kv_connector"):
        return
    extra = _part(transfer, "kv_connector_extra_config")
    children = extra.get("connectors")
    if transfer["kv_connector"] == "MultiConnector" and isinstance(children, list):
        for child in children:
            yield from _links(child)
        return
    yield Link(str(transfer["kv_connector"]), _text_or_none(transfer.get("kv_role")), extra)


def _exposed(metrics: str | None) -> tuple[frozenset[str] | None, float | None]:
    try:
        exposition = parse(metrics or "", _WANTED)
    except ValueError:
        return None, None
    if metrics is None:
        return None, None
    names = {sample.name for sample in exposition.samples} | set(exposition.declared)
    found = {"nixl": _NIXL in names, "offloading": not names.isdisjoint(_OFFLOAD)}
    started = next((sample.value for sample in exposition.samples if sample.name == _START), None)
    return frozenset(name for name, there in found.items() if there), started


def _identity(config: Json) -> str | None:
    """Both ids: an operator may have given two engines the same one of them, and hardly ever both."""
    engine, instance = _part(config, "kv_transfer_config").get("engine_id"), config.get("instance_id")
    return f"{instance}/{engine}" if instance else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return value if type(value) is int else None
