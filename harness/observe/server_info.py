"""Learns a running server's settings over HTTP.

Where each setting comes from:

- ``/metrics``: block size, number of blocks, prefix caching and the KV cache's type, as labels of
  ``vllm:cache_config_info``; the kinds of connectors, since each declares its families from the start;
- ``/version``: the engine's version;
- ``/v1/models``: the served name, the path or hub name of the model, and the longest context;
- ``/server_info``: the block size if no label has it, the connectors in order, NIXL's lease, the offload tier's
  configuration, and the model's own configuration. Servers have this endpoint only with ``VLLM_SERVER_DEV_MODE=1``.

A server that does not answer raises UsageError. A setting that a server does not report, or reports in another form
than vLLM's, is None.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server
from harness.observe.bodies import get_ok, why
from harness.observe.connectors import Connected, connectors_in_metrics, read_connectors
from harness.observe.counters import SAMPLE_NAMES
from harness.observe.exposition import Exposition, parse
from harness.observe.forms import mapping, name_of, whole
from harness.observe.lease import lease_of

TIMEOUT = 15.0
"""Seconds for one request: a server under load answers late, a wrong address not at all."""

_CACHE = "vllm:cache_config_info"
_NIXL = "vllm:nixl_bytes_transferred_sum"
_OFFLOAD = "vllm:kv_offload_total_bytes_total"
_OFFLOAD_NEWER = "vllm:kv_offload_store_bytes_total"
_VLLM = re.compile(r"^(# (HELP|TYPE) )?\w*vllm:", re.MULTILINE)
_RUNNING = "vllm:num_requests_running"
_WANTED = frozenset({_CACHE, _NIXL, _OFFLOAD, _OFFLOAD_NEWER}) | SAMPLE_NAMES


@dataclass(frozen=True, slots=True)
class Learned:
    """A deployment as its servers reported it."""

    deployment: Deployment
    config: Mapping[str, Any] | None
    """The model's config.json, if a server reported it (``/server_info``)."""


async def learn(
    session: aiohttp.ClientSession, *, prefill_urls: Sequence[str], decode_urls: Sequence[str], proxy_url: str | None
) -> Learned:
    """Ask every server; raises UsageError, naming the first server that does not answer as vLLM does.

    The deployment has no geometry and no vocabulary; the caller adds them from the model's configuration.
    """
    wanted = ((Role.PREFILL, prefill_urls), (Role.DECODE, decode_urls))
    asking = (
        _ask(session, name=f"{role}-{index}", role=role, url=url)
        for role, urls in wanted
        for index, url in enumerate(urls)
    )
    answers = []
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    servers = tuple(server for server, _ in answers)
    # Decode servers come first: they answer the clients, so requests name the model as decode servers do.
    named = sorted(servers, key=lambda server: server.role is not Role.DECODE)
    deployment = Deployment(
        servers=servers,
        proxy_url=proxy_url,
        model=next((server.model for server in named if server.model), ""),
        model_path=next((server.model_path for server in named if server.model_path), None),
        device=next(iter(devices)) if len(devices := {server.device for server in servers}) == 1 else None,
    )
    return Learned(deployment, next((config for _, config in reversed(answers) if config), None))


async def _ask(
    session: aiohttp.ClientSession, *, name: str, role: Role, url: str
) -> tuple[Server, Mapping[str, Any] | None]:
    asker = _Asker(session, role, url.rstrip("/"))
    beside = asyncio.gather(asker.json_or_none("/version"), asker.server_info())
    try:
        metrics, models = await asker.metrics(), await asker.json("/v1/models")
    finally:
        # Neither request raises, and none may be in flight when the session closes.
        version, info = await beside
    model = first_model(models)
    if model is None:
        raise asker.unusable("/v1/models", "the answer lists no model")
    return _server(Server(name, role, asker.url), metrics, model, version, info), _model_config(info)


def _server(
    server: Server,
    metrics: Exposition,
    model: Mapping[str, Any],
    version: Mapping[str, Any] | None,
    info: Mapping[str, Any] | None,
) -> Server:
    """Add the reported settings; ``info`` is the server's configuration, ``model`` the first model that it lists."""
    cache = _cache_labels(metrics)
    block_size = whole(cache.get("block_size")) or whole(_part(info, "cache_config").get("block_size"))
    found = _connected(info, metrics)
    return replace(
        server,
        block_size=block_size,
        num_blocks=whole(cache.get("num_gpu_blocks")),
        prefix_caching={"True": True, "False": False}.get(cache.get("enable_prefix_caching", "")),
        version=name_of(mapping(version).get("version")),
        max_model_len=whole(model.get("max_model_len")),
        max_num_batched_tokens=whole(_part(info, "scheduler_config").get("max_num_batched_tokens")),
        ranks=whole(_part(info, "parallel_config").get("tensor_parallel_size")),
        device=_device(info),
        model=name_of(model.get("id")),
        model_path=name_of(model.get("root")),
        kv_dtype=_kv_dtype(info, cache),
        connectors=found.known,
        connectors_listed=found.listed,
        unknown_connectors=found.unknown,
        asked_before_unknown=found.before_unknown,
        offload_block_size=found.chunk_size(block_size),
        offload_bytes=found.tier_bytes,
        offload_prompt_only=found.prompt_only,
        lease=lease_of(info, found.nixl),
        engines=_engines(metrics),
    )


@dataclass(frozen=True, slots=True)
class _Asker:
    session: aiohttp.ClientSession
    role: Role
    url: str

    async def text(self, path: str) -> str:
        """GET a path and return the body; UsageError if that fails."""
        try:
            return await get_ok(self.session, self.url + path, TIMEOUT)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.unusable(path, why(error)) from error

    async def json(self, path: str) -> Any:
        text = await self.text(path)
        try:
            return json.loads(text)
        # RecursionError is raised for deeply nested arrays.
        except (ValueError, RecursionError) as error:
            raise self.unusable(path, "the answer is not JSON") from error

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
            raise self.unusable("/metrics", f"the answer cannot be parsed: {why(error)}") from error
        # Some frontends of vLLM do not expose the cache's configuration; then any other family of vLLM is accepted.
        if not _VLLM.search(text):
            raise self.unusable("/metrics", f"it exposes neither {_CACHE} nor any other family of vLLM")
        return exposition

    async def server_info(self) -> Mapping[str, Any] | None:
        """Its configuration, and the environment variables that it reports (``vllm_env``)."""
        answer = await self.json_or_none("/server_info?config_format=json") or {}
        config = answer.get("vllm_config")
        return {**config, "vllm_env": answer.get("vllm_env")} if isinstance(config, dict) else None

    def unusable(self, path: str, cause: str) -> UsageError:
        flag = f"--{self.role}-url"
        return UsageError(
            f"The {self.role} server at {self.url} did not answer GET {path} as a vLLM server does: {cause}. "
            f"Check that the server is up and can be reached from here (try: curl {self.url}/metrics), and that "
            f"{flag} is the address of the vLLM server itself, not of the proxy."
        )


def _cache_labels(metrics: Exposition) -> Mapping[str, str]:
    """Return the labels on which all samples agree; there may be one sample for each engine behind the URL."""
    every = [sample.labels for sample in metrics.samples if sample.name == _CACHE]
    first, others = (every[0], every[1:]) if every else ({}, [])
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _device(info: Mapping[str, Any] | None) -> str | None:
    """Return ``cpu`` or ``cuda``; vLLM 0.32 reports only ``device``, which is ``cuda:0`` if there are several."""
    config = _part(info, "device_config")
    device = (name_of(config.get("device_type")) or name_of(config.get("device")) or "").partition(":")[0]
    return None if device in ("", "auto") else device


def _engines(metrics: Exposition) -> int:
    """Count the data-parallel engines, each of which has samples with its own ``engine`` label.

    A gateway may sum some families over the engines and omit the label there, so the labels of all families count. It
    may also rename the label; then there are still as many gauges as engines.
    """
    labels = {sample.labels["engine"] for sample in metrics.samples if "engine" in sample.labels}
    gauges = {frozenset(sample.labels.items()) for sample in metrics.samples if sample.name == _RUNNING}
    return max(len(labels), len(gauges), 1)


def first_model(models: Any) -> Mapping[str, Any] | None:
    """Return the first model in an answer of ``/v1/models``; None if it lists none."""
    # LoRA adapters are listed too; they name their parent.
    listed = mapping(models).get("data")
    for model in listed if isinstance(listed, list) else ():
        if name_of(mapping(model).get("id")) and not model.get("parent"):
            return mapping(model)
    return None


def _part(config: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    return mapping((config or {}).get(name))


def _connected(config: Mapping[str, Any] | None, metrics: Exposition) -> Connected:
    """Read the connectors from the engine's configuration or, if it lists none, from the families in the metrics."""
    names = {sample.name for sample in metrics.samples} | set(metrics.declared)
    families = connectors_in_metrics(nixl=_NIXL in names, offloads=not names.isdisjoint({_OFFLOAD, _OFFLOAD_NEWER}))
    if config is None or "kv_transfer_config" not in config:
        return families
    listed = read_connectors(config["kv_transfer_config"])
    # A configuration without connectors is not trusted if the metrics have families of connectors.
    if listed is None or (not listed.known and not listed.unknown and families.known):
        return families
    return listed


def _kv_dtype(config: Mapping[str, Any] | None, labels: Mapping[str, str]) -> str | None:
    """Return ``cache_dtype`` or, if that is auto, the model's type as the engine resolved it."""
    cache = name_of(_part(config, "cache_config").get("cache_dtype")) or labels.get("cache_dtype")
    if cache not in ("auto", "", "None", None):
        return cache
    model = name_of(_part(config, "model_config").get("dtype"))
    return model.removeprefix("torch.") if model and cache == "auto" else None


def _model_config(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the model's config.json, which the engine may print as ``LlamaConfig {...}``."""
    content = _part(config, "model_config").get("hf_config")
    if isinstance(content, str):
        try:
            content = json.loads(content[content.index("{") :])
        except (ValueError, RecursionError):
            return None
    return content if isinstance(content, dict) else None
