"""Opens a deployment: launches or attaches to it, checks it, warms it up, and learns its facts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from harness.clock import Clock
from harness.deploy.engine import find_engine
from harness.deploy.launch import launched, start_proxy
from harness.deploy.learning import learned_facts, looks_like_a_path
from harness.deploy.nursery import Nursery
from harness.deploy.plan import Engine
from harness.deploy.plugin_path import write_plugin_path
from harness.deploy.ports import require_free
from harness.deploy.relaying import SIDE_CHANNEL, Relaying, start_relays
from harness.deploy.simulate import simulated
from harness.deploy.target import Attachment, Target
from harness.deploy.warmup_load import warm_up_load
from harness.deploy.warmup_request import PROMPT_TOKENS, WarmUp
from harness.deploy.warmup_transfers import warm_up_transfers
from harness.errors import DeployError, UsageError
from harness.facts import Connector, Deployment, Role
from harness.history import DeadProcess
from harness.loads.demand import Demand
from harness.models import make_canary, read_model
from harness.observer import SILENT, RunObserver
from harness.preflight import (
    CounterWatch,
    Expectations,
    Item,
    ServerReport,
    all_prompts_counted,
    check_deployment,
    check_first_transfers,
    check_proxy_servers,
    check_transfer_bytes,
    has_our_proxy,
    nixl_handover_expected,
    refuse,
    transfers_counted,
)

_WARMUPS = 8
"""Default number of requests in the first load."""
_COUNTED_WITHIN = 3.0
"""Seconds after an answer within which every server has counted its share of the request."""
_PORT_FLAGS = {"proxy": "--port", "prefill": "--prefill-port", "decode": "--decode-port"}


@dataclass(frozen=True, slots=True)
class Session:
    """An open deployment, warmed up."""

    deployment: Deployment
    nursery: Nursery
    """The processes that the harness started for the deployment; there may be none."""
    relaying: Relaying = field(default_factory=Relaying)
    """The relays that stand before its servers."""

    def died(self) -> tuple[DeadProcess, ...]:
        """The processes started by the harness that ended by themselves, with the reason of each."""
        return tuple(DeadProcess(*one) for one in self.nursery.dead().items())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the caller of ``open_session`` provides."""

    directory: Path
    """The run's directory, for logs and the engine's plugins."""
    clock: Clock
    observer: RunObserver = SILENT
    demands: Sequence[Demand] = ()
    """The demands of the load's requests, as far as they are known in advance."""
    on_checked: Callable[[Sequence[Item]], None] = lambda _items: None
    """Called with the items of the checks before the first request, and later with those of the first requests."""

    def checked(self, items: Sequence[Item]) -> None:
        """Pass the items to ``on_checked``; raise NotReady if one of them stops a run."""
        self.on_checked(items)
        refuse(items)

    def nursery(self, target: Target) -> Nursery:
        """The group for the session's processes."""
        return Nursery(self.directory / "logs", self.clock, target.ready_timeout, self.observer)


@asynccontextmanager
async def open_session(target: Target, around: Surroundings) -> AsyncIterator[Session]:
    """Launch or attach to a deployment, learn its facts, warm it up; at the end, stop the processes started for it.

    Raises UsageError if a URL does not answer, the model does not exist, a port is in use or no engine is installed;
    DeployError if a server dies or does not answer in time.
    """
    async with AsyncExitStack() as stack:
        if target.engine == "sim":
            session = await _simulate(target, around, stack)
        elif target.attachment is None:
            session = await _launch(target, around, stack)
        else:
            session = await _attach(target, target.attachment, around, stack)
        reports = await _check(session.deployment, target, around)
        try:
            deployment = await _warm_up(session.deployment, target, around, reports)
        except DeployError as failure:
            raise _with_logged_errors(failure, session.nursery) from failure
        yield replace(session, deployment=deployment)


async def _check(deployment: Deployment, target: Target, around: Surroundings) -> Sequence[ServerReport]:
    """The servers' reports. Raises NotReady if a check finds that a run is useless."""
    vocabulary = deployment.vocab_size if deployment.vocab_is_whole else None
    expectations = Expectations(around.demands, deployment.proxy_url is not None, vocabulary)
    async with aiohttp.ClientSession(headers=target.headers) as session:
        reports, items = await check_deployment(session, deployment, around.clock, expectations)
        around.checked(items)
    return reports


def _with_logged_errors(failure: DeployError, nursery: Nursery) -> DeployError:
    """The failure with the first error in each log of the processes that the harness started."""
    errors = [f"The first error in the log of {name}: {cause}" for name, cause in nursery.logged_errors().items()]
    return DeployError("\n".join([str(failure), *errors]))


async def _launch(target: Target, around: Surroundings, stack: AsyncExitStack) -> Session:
    ports = {name: require_free(port, _PORT_FLAGS[name.partition("-")[0]]) for name, port in target.ports.items()}
    # The model is read first, so that a wrong path is reported before the engines start.
    model = str(make_canary()) if target.model is None else target.model
    if target.model is None or looks_like_a_path(target.model):
        read_model(model)
    engines = {role: await _engine(role, target, around) for role in Role}
    name = target.served_model_name or ("canary" if target.model is None else None)
    nursery = around.nursery(target)
    planned = replace(target, model=model, served_model_name=name)
    parts = await stack.enter_async_context(launched(planned, engines, ports, nursery))
    deployment = await learned_facts(target, parts.urls(Role.PREFILL), parts.urls(Role.DECODE), parts.proxy_url)
    device = engines[Role.DECODE].build.device
    servers = tuple(replace(server, pid=nursery.pid(server.name)) for server in deployment.servers)
    deployment = replace(deployment, servers=servers, launched=True, end_tokens_complete=True, device=device)
    return Session(_with_own_proxy(deployment), nursery, parts.relaying)


def _with_own_proxy(deployment: Deployment) -> Deployment:
    """The deployment with its proxy, if it has one, recorded as the harness's own."""
    return replace(deployment, own_proxy=None if deployment.proxy_url is None else True)


async def _attach(target: Target, to: Attachment, around: Surroundings, stack: AsyncExitStack) -> Session:
    nursery = around.nursery(target)
    stack.push_async_callback(nursery.stop)
    deployment = await learned_facts(target, to.prefill_urls, to.decode_urls, to.base_url)
    relaying = await start_relays(nursery, target.relays, {one.name: one.url for one in deployment.servers})
    if to.base_url is None:
        url = await start_proxy(nursery, to.prefill_urls, to.decode_urls, target.ports, relaying.detours)
        deployment = _with_own_proxy(replace(deployment, proxy_url=url))
    elif relaying.detours:
        raise UsageError("A fault on a link needs the harness's own proxy: leave --base-url out.")
    return Session(deployment, nursery, relaying)


async def _simulate(target: Target, around: Surroundings, stack: AsyncExitStack) -> Session:
    nursery = around.nursery(target)
    stack.push_async_callback(nursery.stop)
    deployment, relaying = await simulated(target, nursery)
    return Session(_with_own_proxy(deployment), nursery, relaying)


async def _engine(role: Role, target: Target, around: Surroundings) -> Engine:
    build = await find_engine(target.engine_pythons[role], target.device, target.connectors)
    plugin_path = write_plugin_path(around.directory / "engine_path") if build.device == "cpu" else None
    return Engine(build, plugin_path)


async def _warm_up(
    deployment: Deployment, target: Target, around: Surroundings, reports: Sequence[ServerReport]
) -> Deployment:
    """Run the first transfers and a first load; returns the deployment without the facts that they contradict."""
    how = WarmUp(deployment.model, target.headers, around.clock, target.ready_timeout, deployment.launched)
    started = around.clock.now()
    around.observer.deploy("warm-up", "first KV transfer", 0.0)
    # The handover format of an unknown connector is not known: only the load through the proxy can test it.
    nixl = deployment.has(Connector.NIXL)
    may_transfer = nixl or (nixl is None and not deployment.unknown_connectors())
    started_proxy = deployment.own_proxy is True or deployment.proxy_url is None
    if SIDE_CHANNEL in target.relays:
        # Servers make a handshake once. A fault on it must find it still to be made.
        return deployment
    if may_transfer and nixl_handover_expected(reports, started_proxy=started_proxy):
        deployment = await _first_transfers(deployment, target, how, around)
    around.observer.deploy("warm-up", "first load", around.clock.now() - started)
    await _first_load(deployment, target, how, around, reports)
    deployment = await _with_known_proxy(deployment, target)
    # An idle engine takes no steps, and counts the decode servers' last notifications only with its next request.
    # After this request, all traces of the warm-up are in the counters before these are first read.
    await asyncio.gather(*(warm_up_load(server.url, 1, how) for server in deployment.of(Role.PREFILL)))
    around.observer.deploy("warm-up", "done", around.clock.now() - started)
    return deployment


async def _with_known_proxy(deployment: Deployment, target: Target) -> Deployment:
    """The deployment with ``own_proxy`` known. Asked after the load, since a gateway's refusal of a load says more."""
    if deployment.own_proxy is not None or deployment.proxy_url is None:
        return deployment
    async with aiohttp.ClientSession(headers=target.headers) as session:
        return replace(deployment, own_proxy=await has_our_proxy(session, deployment.proxy_url))


async def _first_transfers(deployment: Deployment, target: Target, how: WarmUp, around: Surroundings) -> Deployment:
    prefill, decode = (deployment.of(role) for role in Role)
    async with aiohttp.ClientSession(headers=target.headers) as session:
        watch = CounterWatch(session, decode, around.clock)
        await watch.begin()
        await warm_up_transfers([one.url for one in prefill], [one.url for one in decode], how)
        growth = await watch.until(lambda grown: transfers_counted(grown, len(prefill)), _COUNTED_WITHIN)
    around.checked(list(check_first_transfers(decode, growth)))
    if deployment.launched:
        return deployment
    items = list(check_transfer_bytes(deployment, growth, tokens=PROMPT_TOKENS, model=target.model))
    around.checked(items)
    if not items:
        return deployment
    return replace(deployment, geometry=None, geometry_unknown=f"{items[0].seen[:1].lower()}{items[0].seen[1:]}")


async def _first_load(
    deployment: Deployment, target: Target, how: WarmUp, around: Surroundings, reports: Sequence[ServerReport]
) -> None:
    """Send the first load to the proxy, else to a decode server; check which servers the user's proxy asks."""
    requests = _WARMUPS if target.num_warmups is None else target.num_warmups
    url = deployment.proxy_url or deployment.of(Role.DECODE)[0].url
    if target.attachment is None or target.attachment.base_url is None or not requests:
        await warm_up_load(url, requests, how)
        return
    servers, sent = deployment.servers, requests * PROMPT_TOKENS
    async with aiohttp.ClientSession(headers=target.headers) as session:
        watch = CounterWatch(session, servers, around.clock)
        await watch.begin()
        await warm_up_load(url, requests, how)
        growth = await watch.until(lambda grown: all_prompts_counted(servers, grown, sent), _COUNTED_WITHIN)
    around.checked(list(check_proxy_servers(url, servers, growth, requests=requests, tokens=PROMPT_TOKENS)))
    unknown = {one.name for one in reports if one.can_transfer is None and one.server.role is Role.DECODE}
    of_unknown = [(one, grown) for one, grown in zip(servers, growth, strict=True) if one.name in unknown]
    around.checked(list(check_first_transfers([one for one, _ in of_unknown], [grown for _, grown in of_unknown])))
