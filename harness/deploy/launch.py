"""Launches a deployment: the servers in parallel, then the proxy. However the context is left, all of them end."""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory

from harness.deploy.keeper import OWN_DIRECTORY
from harness.deploy.nursery import Nursery
from harness.deploy.plan import Engine, ServerPlan, Slot, plan_server
from harness.deploy.ports import free_ports
from harness.deploy.relaying import Relaying, start_relays
from harness.deploy.target import Target
from harness.facts import Role
from harness.proxy.cli import DECODE_VARIABLE, PREFILL_VARIABLE

Ports = Mapping[str, int]
"""Wanted ports by process name (``prefill-0``, ``proxy``); all other processes get free ports."""

_SOCKET_VARIABLES = {
    "cpu": ("VLLM_RPC_BASE_PATH", "TMPDIR"),
    # TMPDIR stays as it is, because compiled kernels are kept there from one start to the next.
    "cuda": ("VLLM_RPC_BASE_PATH",),
}
"""Environment variables, by device, for the directory in which vLLM's processes create their sockets."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A running deployment that the harness launched."""

    plans: Sequence[ServerPlan]
    proxy_url: str | None
    """None if no connector transfers KV."""
    relaying: Relaying = field(default_factory=Relaying)

    def urls(self, role: Role) -> tuple[str, ...]:
        """The addresses of the servers with this role, in order."""
        return tuple(plan.url for plan in self.plans if plan.role is role)


@asynccontextmanager
async def launched(
    target: Target, engines: Mapping[Role, Engine], ports: Ports, nursery: Nursery
) -> AsyncIterator[Launched]:
    """Start everything, yield when every process answers, end everything; ``target`` names its model.

    Raises DeployError, with the end of the log, if a server died or did not answer in time.
    """
    plans = plan_servers(target, engines, ports)
    parts = Launched(plans, None)
    # vLLM's processes leave their sockets and files behind. The path must be short, since a socket's path may have
    # 107 bytes at most.
    with TemporaryDirectory(prefix="pd-", ignore_cleanup_errors=True) as directory:
        try:
            for plan in plans:
                # Each has its own, which its keeper makes, and removes also if the harness was killed.
                own = f"{directory}/{plan.name}"
                sockets = dict.fromkeys((OWN_DIRECTORY, *_SOCKET_VARIABLES[engines[plan.role].build.device]), own)
                nursery.start(plan.name, plan.argv, {**plan.environment, **sockets})
            await nursery.all_answer({plan.name: plan.url for plan in plans})
            side_channel = plans[0].side_channel if target.transfers else None
            relaying = await start_relays(nursery, target.relays, {plan.name: plan.url for plan in plans}, side_channel)
            parts = replace(parts, relaying=relaying)
            if target.transfers:
                proxy_url = await start_proxy(
                    nursery, parts.urls(Role.PREFILL), parts.urls(Role.DECODE), ports, relaying.detours
                )
                parts = replace(parts, proxy_url=proxy_url)
            yield parts
        finally:
            await nursery.stop()


def plan_servers(target: Target, engines: Mapping[Role, Engine], ports: Ports) -> list[ServerPlan]:
    """One plan for each server, prefill servers first."""
    wanted = [(Role.PREFILL, n) for n in range(target.prefill)] + [(Role.DECODE, n) for n in range(target.decode)]
    free = iter(free_ports(2 * len(wanted)))
    plans = []
    for index, (role, number) in enumerate(wanted):
        port, side_channel = next(free), next(free)
        engine = engines[role]
        slot = Slot(index, ports.get(f"{role}-{number}", port), side_channel, len(wanted), engine.build.gpus)
        plans.append(plan_server(role, number, slot, target, engine))
    return plans


async def start_proxy(
    nursery: Nursery, prefill: Sequence[str], decode: Sequence[str], ports: Ports, detours: Sequence[str] = ()
) -> str:
    """Start the proxy as a process, so that it shares no event loop with the clients; returns the proxy's URL.

    The servers' URLs are passed in the environment: they may hold credentials, and every user can see arguments.
    ``detours``: addresses that it uses in place of others, ``HOST:PORT=HOST:PORT``.
    """
    port = ports.get("proxy") or free_ports(1)[0]
    argv = [sys.executable, "-m", "harness.proxy", "--host", "127.0.0.1", "--port", str(port)]
    argv += [word for detour in detours for word in ("--detour", detour)]
    servers = {PREFILL_VARIABLE: " ".join(prefill), DECODE_VARIABLE: " ".join(decode)}
    nursery.start("proxy", argv, {**os.environ, **servers})
    url = f"http://127.0.0.1:{port}"
    await nursery.all_answer({"proxy": url})
    return url
