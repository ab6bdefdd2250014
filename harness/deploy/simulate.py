"""Launches a simulated pair instead of engines, with the same facts and proxy, in a second."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from harness.deploy.launch import start_proxy
from harness.deploy.nursery import Nursery
from harness.deploy.ports import free_ports
from harness.deploy.relaying import Relaying, start_relays
from harness.deploy.simulated_args import CannotSimulate, simulated_fields
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Deployment, Role
from harness.sim import SimConfig, SimPair

_AS_JSON = (
    *("max_model_len", "max_num_batched_tokens", "max_num_seqs", "prefix_caching", "lease_seconds"),
    *("load_failure_policy", "pull_seconds", "shutdown_timeout", "prefill", "decode"),
)
"""Fields of SimConfig that have no flag of their own on its command line."""


async def simulated(target: Target, nursery: Nursery) -> tuple[Deployment, Relaying]:
    """Start the servers, in one process or in one each, the proxy if KV is transferred, and the wanted relays.

    Raises UsageError if the target needs a real engine, and DeployError if a process does not start.
    """
    if target.model:
        raise UsageError("--engine sim has its own model: leave --model out.")
    config = sim_config(target)
    ports = _ports(target)
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    channels = _side_channels(ports) if target.separate_processes else {}
    if channels:
        for name, channel in channels.items():
            nursery.start(name, separate_argv(config, name, ports[name], channel), os.environ)
        await nursery.all_answer(urls)
    else:
        nursery.start("sim", sim_argv(config, ports), os.environ)
        await nursery.all_answer({"sim": next(iter(urls.values()))})
    # This pair only provides the facts; it serves no request.
    pair = SimPair(config, lambda: 0.0)
    prefill, decode = ([urls[server.name] for server in pair.of(role)] for role in Role)
    side_channel = f"127.0.0.1:{channels['prefill-0']}" if channels else None
    relaying = await start_relays(nursery, target.relays, urls, side_channel)
    if not target.transfers:
        return pair.facts(urls, None), relaying
    proxy_url = await start_proxy(nursery, prefill, decode, target.ports, relaying.detours)
    return pair.facts(urls, proxy_url), relaying


def sim_config(target: Target) -> SimConfig:
    """The simulator's configuration. Raises CannotSimulate if the simulator does not model a part of the target."""
    default = SimConfig()
    fields = {
        "prefills": target.prefill,
        "decodes": target.decode,
        "block_size": target.block_size or default.block_size,
        "num_blocks": target.num_gpu_blocks or default.num_blocks,
        "connectors": target.connectors,
        "sim_noise": target.sim_noise,
        "load_failure_policy": target.kv_load_failure_policy or default.load_failure_policy,
        "lease_seconds": target.nixl_config.get("kv_lease_duration", default.lease_seconds),
        **simulated_fields(target.engine_args),
    }
    by_role = {role: simulated_fields(target.role_args.get(role, ())) for role in Role}
    config = replace(default, **fields, prefill=by_role[Role.PREFILL], decode=by_role[Role.DECODE])
    prefill, decode = (config.of(role) for role in Role)
    if prefill.block_size != decode.block_size:
        raise CannotSimulate(
            f"the simulated pair does not count bytes as an engine does with block sizes of {prefill.block_size} "
            f"tokens on prefill and {decode.block_size} on decode: use a real engine for this case"
        )
    # A pool must hold at least one request of the maximum length: an engine refuses to start otherwise, and here the
    # request would never be served.
    longest = min(config.max_model_len, *((one.num_blocks - 1) * one.block_size for one in (prefill, decode)))
    return replace(config, max_model_len=longest, offload_chunks=target.offload_bytes // prefill.block_bytes)


def _ports(target: Target) -> dict[str, int]:
    """Ports by server name, prefill first: the names and order of SimPair."""
    names = [
        f"{role}-{n}" for role, count in zip(Role, (target.prefill, target.decode), strict=True) for n in range(count)
    ]
    return {name: target.ports.get(name, port) for name, port in zip(names, free_ports(len(names)), strict=True)}


def _side_channels(ports: Mapping[str, int]) -> dict[str, int]:
    """A port for each server's side channel, none of which is one of these ports."""
    # Nobody holds the servers' own ports yet, so that they may be found again.
    free = (port for port in free_ports(2 * len(ports)) if port not in ports.values())
    return dict(zip(ports, free, strict=False))


def separate_argv(config: SimConfig, name: str, port: int, side_channel: int) -> list[str]:
    """The command line of one server's own process."""
    return [*sim_argv(config, {name: port}), "--only", name, "--side-channel-port", str(side_channel)]


def sim_argv(config: SimConfig, ports: Mapping[str, int]) -> list[str]:
    """The command line of a process that simulates these servers."""
    return [
        *(sys.executable, "-m", "harness.sim"),
        *(word for name, port in ports.items() for word in (f"--{name.partition('-')[0]}-port", str(port))),
        *(word for connector in config.connectors for word in ("--connector", connector)),
        *("--block-size", str(config.block_size), "--num-blocks", str(config.num_blocks)),
        *("--offload-chunks", str(config.offload_chunks), "--sim-noise", config.sim_noise),
        *("--fields", json.dumps({name: getattr(config, name) for name in _AS_JSON})),
    ]
