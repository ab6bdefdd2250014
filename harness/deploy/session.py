"""A deployment, from its options to its facts: launched or attached to, warmed up, known. The room's one door."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from harness.clock import Clock
from harness.deploy.engine import find_engine
from harness.deploy.launch import launched, start_proxy
from harness.deploy.nursery import Nursery
from harness.deploy.plan import Engine, LaunchOptions
from harness.deploy.plugin_path import write_plugin_path
from harness.deploy.ports import require_free
from harness.deploy.simulate import simulated
from harness.deploy.target import Attachment, Target
from harness.deploy.warmup import PROMPT_TOKENS, WarmUp, warm_up_load, warm_up_transfers
from harness.errors import DeployError, ModelNotFound
from harness.facts import Connector, Deployment, Role
from harness.loads.demand import Demand
from harness.models import ModelFacts, make_canary, read_config, read_model
from harness.observe.facts import learn
from harness.observe.vocabulary import tokens_that_are_safe
from harness.observer import SILENT, RunObserver
from harness.preflight import (
    Item,
    Questions,
    Told,
    Watch,
    arrived,
    asks_nixl,
    has_our_proxy,
    leads_to,
    look,
    refuse,
    taken,
    took,
    volume,
)

_WARMUPS = 8
"""Requests of the first load, unless the user says otherwise."""
_COUNTED_WITHIN = 3.0
"""Seconds after an answer within which every server has counted its part in it."""
_PORT_FLAGS = {"proxy": "--port", "prefill": "--prefill-port", "decode": "--decode-port"}


@dataclass(frozen=True, slots=True)
class Session:
    """A deployment that answers."""

    deployment: Deployment
    nursery: Nursery
    """The processes that the harness started for the deployment; there may be none."""

    def died(self) -> tuple[str, ...]:
        """How each process ended that the harness had started and that ended by itself."""
        return tuple(self.nursery.dead().values())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session needs from whoever opens it."""

    directory: Path
    """Of the run: logs and the engine's plugins go there."""
    clock: Clock
    observer: RunObserver = SILENT
    demands: Sequence[Demand] = ()
    """What the load will ask, as far as it is known before the servers are."""
    on_checked: Callable[[Sequence[Item]], None] = lambda _items: None
    """Told what was seen before the first request, and then of the first requests."""

    def checked(self, items: Sequence[Item]) -> None:
        """Tell, and raise NotReady where something stops a run."""
        self.on_checked(items)
        refuse(items)

    def nursery(self, target: Target) -> Nursery:
        """Where the session's processes live."""
        return Nursery(self.directory / "logs", self.clock, target.ready_timeout, self.observer)


@asynccontextmanager
async def open_session(target: Target, around: Surroundings) -> AsyncIterator[Session]:
    """Launch or attach, warm up, learn the facts; end what was started.

    Raises:
        UsageError: a URL that does not answer, a model that is not there, a port in use, no engine.
        DeployError: a server that died or never answered.

    """
    async with AsyncExitStack() as stack:
        if target.engine == "sim":
            session = await _simulate(target, around, stack)
        elif target.attachment is None:
            session = await _launch(target, around, stack)
        else:
            session = await _attach(target, target.attachment, around, stack)
        told = await _looked_at(session.deployment, target, around)
        try:
            deployment = await _warm_up(session.deployment, target, around, told)
        except DeployError as failure:
            raise _explained(failure, session.nursery) from failure
        yield replace(session, deployment=deployment)


async def _looked_at(deployment: Deployment, target: Target, around: Surroundings) -> Sequence[Told]:
    """What its servers tell; NotReady where no run is of use."""
    vocabulary = deployment.vocab_size if deployment.vocab_is_whole else None
    questions = Questions(around.demands, deployment.proxy_url is not None, vocabulary)
    async with aiohttp.ClientSession(headers=target.headers) as session:
        told, items = await look(session, deployment, around.clock, questions)
        around.checked(items)
    return told


def _explained(failure: DeployError, nursery: Nursery) -> DeployError:
    """With what the servers' own logs say, where the harness has them."""
    said = [f"The first error in the log of {name}: {cause}" for name, cause in nursery.complaints().items()]
    return DeployError("\n".join([str(failure), *said]))


async def _launch(target: Target, around: Surroundings, stack: AsyncExitStack) -> Session:
    ports = {name: require_free(port, _PORT_FLAGS[name.partition("-")[0]]) for name, port in target.ports.items()}
    # Looked at first: a path with no model is told in a moment, not after the engines have loaded.
    model = str(make_canary()) if target.model is None else target.model
    if target.model is None or _looks_like_a_path(target.model):
        read_model(model)
    engines = {role: await _engine(role, target, around) for role in Role}
    options = _launch_options(target, model)
    parts = await stack.enter_async_context(launched(options, engines, ports, around.nursery(target)))
    deployment = await _learn(
        target,
        tuple(plan.url for plan in parts.plans if plan.role is Role.PREFILL),
        tuple(plan.url for plan in parts.plans if plan.role is Role.DECODE),
        parts.proxy_url,
    )
    device = engines[Role.DECODE].build.device
    pids = {plan.name: parts.nursery.pid(plan.name) for plan in parts.plans}
    servers = tuple(replace(server, pid=pids[server.name]) for server in deployment.servers)
    own = None if parts.proxy_url is None else True
    return Session(
        replace(deployment, servers=servers, launched=True, end_tokens_complete=True, device=device, own_proxy=own),
        parts.nursery,
    )


def _looks_like_a_path(model: str) -> bool:
    """A hub name is at most ``owner/name``; what the engine can fetch is its own business."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1


async def _attach(target: Target, to: Attachment, around: Surroundings, stack: AsyncExitStack) -> Session:
    nursery = around.nursery(target)
    stack.push_async_callback(nursery.stop)
    deployment = await _learn(target, to.prefill_urls, to.decode_urls, to.base_url)
    if to.base_url is None:
        url = await start_proxy(nursery, to.prefill_urls, to.decode_urls, target.ports)
        deployment = replace(deployment, proxy_url=url, own_proxy=True)
    return Session(deployment, nursery)


async def _simulate(target: Target, around: Surroundings, stack: AsyncExitStack) -> Session:
    nursery = around.nursery(target)
    stack.push_async_callback(nursery.stop)
    deployment = await simulated(target, nursery)
    return Session(replace(deployment, own_proxy=None if deployment.proxy_url is None else True), nursery)


async def _engine(role: Role, target: Target, around: Surroundings) -> Engine:
    build = await find_engine(target.engine_pythons[role], target.device, target.connectors)
    plugin_path = write_plugin_path(around.directory / "engine_path") if build.device == "cpu" else None
    return Engine(build, plugin_path)


def _launch_options(target: Target, model: str) -> LaunchOptions:
    return LaunchOptions(
        model=model,
        served_model_name=target.served_model_name or ("canary" if target.model is None else None),
        connectors=target.connectors,
        prefill=target.prefill,
        decode=target.decode,
        block_size=target.block_size,
        num_gpu_blocks=target.num_gpu_blocks,
        offload_bytes=target.offload_bytes,
        nixl_config=target.nixl_config,
        engine_args=target.engine_args,
        role_args=target.role_args,
        ready_timeout=target.ready_timeout,
    )


async def _learn(
    target: Target, prefill: tuple[str, ...], decode: tuple[str, ...], proxy_url: str | None
) -> Deployment:
    async with aiohttp.ClientSession(headers=target.headers) as session:
        learned = await learn(session, prefill_urls=prefill, decode_urls=decode, proxy_url=proxy_url)
        deployment = learned.deployment
        named = replace(
            deployment,
            model=target.served_model_name or deployment.model,
            model_path=target.model or deployment.model_path,
        )
        if target.kv_cache_dtype is not None:
            named = named.with_servers(kv_dtype=target.kv_cache_dtype)
        known = with_model(named, known_model(named, target.model, learned.config))
        if known.vocab_size is not None:
            return known
        return replace(known, **await tokens_that_are_safe(session, named))


def known_model(deployment: Deployment, wanted: str | None, told: Mapping[str, Any] | None) -> ModelFacts | None:
    """What the model's configuration says: in its files, else as a server told it; None where neither is there.

    ``wanted``: the model that the user named.

    Raises:
        ModelNotFound: it is a directory, and there is no model in it.

    """
    dtypes = [server.kv_dtype for server in deployment.servers]
    kv_dtype = None if None in dtypes else dtypes[0]
    try:
        return read_model(deployment.model_path or "", kv_dtype=kv_dtype)
    except ModelNotFound:
        # A hub name may be known to the servers alone.
        if wanted is not None and _looks_like_a_path(wanted):
            raise
    return None if told is None else read_config(told, kv_dtype=kv_dtype)


def with_model(deployment: Deployment, model: ModelFacts | None) -> Deployment:
    """With what the model's configuration tells; without one those facts stay unknown, and so does what needs them."""
    if model is None:
        name = deployment.model_path or deployment.model
        why = f"the configuration of the model {name} cannot be read here (--model names a directory that has it)"
        return replace(deployment, geometry=None, geometry_unknown=why, cache_rules_unknown=why)
    # vLLM serves a checkpoint in 16 bits as it is, and casts a float32 one to whatever suits the device: without
    # its own word the width of the KV cache would be a guess.
    told = all(server.kv_dtype is not None for server in deployment.servers)
    certain = told or model.dtype in ("bfloat16", "float16")
    return replace(
        deployment,
        geometry=model.geometry if certain else None,
        geometry_unknown=model.geometry_unknown or ("" if certain else "the servers do not tell the type of their KV"),
        cache_rules_unknown=model.cache_rules_unknown,
        vocab_size=model.vocab_size,
        special_token_ids=model.special_token_ids,
        end_tokens_complete=model.generation_defaults,
    )


async def _warm_up(deployment: Deployment, target: Target, around: Surroundings, told: Sequence[Told]) -> Deployment:
    """First transfers, then a first load; the deployment, less what the first transfers showed to be wrong."""
    how = WarmUp(deployment.model, target.headers, around.clock, target.ready_timeout, deployment.launched)
    started = around.clock.now()
    around.observer.deploy("warm-up", "first KV transfer", 0.0)
    # How an unknown connector hands over is not known either: the load through the proxy shows it.
    nixl = deployment.has(Connector.NIXL)
    may_transfer = nixl or (nixl is None and not deployment.unknown_connectors())
    started_proxy = deployment.own_proxy is True or deployment.proxy_url is None
    if may_transfer and asks_nixl(told, started_proxy=started_proxy):
        deployment = await _first_transfers(deployment, target, how, around)
    around.observer.deploy("warm-up", "first load", around.clock.now() - started)
    await _first_load(deployment, target, how, around, told)
    deployment = await _with_proxy_known(deployment, target)
    # An idle engine takes no steps, and counts decode's last notifications only with its next request: after this
    # one, what the warm-up left behind is in the counters before they are first read.
    await asyncio.gather(*(warm_up_load(server.url, 1, how) for server in deployment.of(Role.PREFILL)))
    around.observer.deploy("warm-up", "done", around.clock.now() - started)
    return deployment


async def _with_proxy_known(deployment: Deployment, target: Target) -> Deployment:
    """Whose the proxy is. Asked after the first load: what a gateway that refuses says to a request is worth more."""
    if deployment.own_proxy is not None or deployment.proxy_url is None:
        return deployment
    async with aiohttp.ClientSession(headers=target.headers) as session:
        return replace(deployment, own_proxy=await has_our_proxy(session, deployment.proxy_url))


async def _first_transfers(deployment: Deployment, target: Target, how: WarmUp, around: Surroundings) -> Deployment:
    prefill, decode = (deployment.of(role) for role in Role)
    async with aiohttp.ClientSession(headers=target.headers) as session:
        watch = Watch(session, decode, around.clock)
        await watch.begin()
        await warm_up_transfers([one.url for one in prefill], [one.url for one in decode], how)
        since = await watch.until(lambda seen: took(seen, len(prefill)), _COUNTED_WITHIN)
    around.checked(list(taken(decode, since)))
    if deployment.launched:
        return deployment
    items = list(volume(deployment, since, tokens=PROMPT_TOKENS, named=target.model))
    around.checked(items)
    if not items:
        return deployment
    return replace(deployment, geometry=None, geometry_unknown=f"{items[0].seen[:1].lower()}{items[0].seen[1:]}")


async def _first_load(
    deployment: Deployment, target: Target, how: WarmUp, around: Surroundings, told: Sequence[Told]
) -> None:
    """Through the proxy, or to decode where there is none; of somebody else's proxy it is seen whom it asks."""
    requests = _WARMUPS if target.num_warmups is None else target.num_warmups
    url = deployment.proxy_url or deployment.of(Role.DECODE)[0].url
    if target.attachment is None or target.attachment.base_url is None or not requests:
        await warm_up_load(url, requests, how)
        return
    servers, sent = deployment.servers, requests * PROMPT_TOKENS
    async with aiohttp.ClientSession(headers=target.headers) as session:
        watch = Watch(session, servers, around.clock)
        await watch.begin()
        await warm_up_load(url, requests, how)
        since = await watch.until(lambda seen: arrived(servers, seen, sent), _COUNTED_WITHIN)
    around.checked(list(leads_to(url, servers, since, requests=requests, tokens=PROMPT_TOKENS)))
    silent = {one.name for one in told if one.hands_over is None and one.server.role is Role.DECODE}
    of_silent = [(one, seen) for one, seen in zip(servers, since, strict=True) if one.name in silent]
    around.checked(list(taken([one for one, _ in of_silent], [seen for _, seen in of_silent])))
