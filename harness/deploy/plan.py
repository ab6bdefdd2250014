"""Decides what to launch before anything is started. Pure: options in, one plan per server out."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.deploy.engine import EngineBuild
from harness.deploy.plugin_path import PACKAGE, PLUGIN_NAMES
from harness.deploy.target import Target
from harness.facts import Connector, Role

CPU_BLOCK_SIZE = 32
"""Tokens: the smallest size that vLLM's CPU attention accepts, since more blocks per prompt reveal more faults."""
CPU_NUM_BLOCKS = 768
"""24,576 tokens: 32 requests in flight of 420 tokens hold 448 blocks. The memory is committed at the start."""
NIXL_PROGRESS_DELAY_US = 500
"""Without the delay NIXL's busy progress threads starve the servers on two cores: 53 s instead of 0.3 s a request."""
QUEUE_PAUSE_US = 200
"""A step of the canary takes milliseconds; busy waiting between steps starves it (engine_plugins/queue_pause)."""
_SIDE_CHANNEL_HOST, _SIDE_CHANNEL_PORT = "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"
RESERVED_GPU_MEMORY = 0.1
"""The fraction of a GPU's memory left for allocations outside the servers' own accounting."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine of one role, and the directory of the plugins for it (None: no plugins are needed)."""

    build: EngineBuild
    plugin_path: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The command of one server, ready to be started."""

    name: str
    role: Role
    port: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def side_channel(self) -> str:
        """Host and port on which NIXL answers handshakes."""
        return f"{self.environment[_SIDE_CHANNEL_HOST]}:{self.environment[_SIDE_CHANNEL_PORT]}"

    @property
    def url(self) -> str:
        """The address on which the server will listen."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A server's index among all servers, its ports, and the number of GPUs and servers."""

    index: int
    port: int
    side_channel_port: int
    servers: int
    gpus: int


def plan_server(role: Role, number: int, slot: Slot, target: Target, engine: Engine) -> ServerPlan:
    """The command line and environment of one vLLM server; ``target`` names its model."""
    argv = [
        engine.build.python,
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(target.model)),
        *(["--served-model-name", target.served_model_name] if target.served_model_name else []),
        *("--host", "127.0.0.1", "--port", str(slot.port)),
        "--disable-uvicorn-access-log",
        # Answers then report the number of cached prompt tokens, which shows that a probe has read a cache.
        "--enable-prompt-tokens-details",
        *("--kv-transfer-config", json.dumps(kv_transfer_config(target, engine))),
        *_device_args(engine.build, slot),
        *_pool_args(target, engine.build),
        # The user's arguments come last: argparse keeps the last value given.
        *_split(target.engine_args),
        *_split(target.role_args.get(role, ())),
    ]
    return ServerPlan(f"{role}-{number}", role, slot.port, tuple(argv), _environment(slot, target, engine))


def kv_transfer_config(target: Target, engine: Engine) -> dict[str, Any]:
    """The value of ``--kv-transfer-config``: one connector, or MultiConnector with several in the given order."""
    parts = [_connector_config(each, target, engine) for each in target.connectors]
    multi = {"kv_connector": "MultiConnector", "kv_role": "kv_both", "kv_connector_extra_config": {"connectors": parts}}
    policy = target.kv_load_failure_policy
    # vLLM's scheduler reads the policy from the whole, not from MultiConnector's parts.
    return (parts[0] if len(parts) == 1 else multi) | ({"kv_load_failure_policy": policy} if policy else {})


def _connector_config(connector: Connector, target: Target, engine: Engine) -> dict[str, Any]:
    if connector is Connector.NIXL:
        nixl = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": engine.build.device}
        return nixl | ({"kv_connector_extra_config": dict(target.nixl_config)} if target.nixl_config else {})
    extra: dict[str, Any] = {"cpu_bytes_to_use": target.offload_bytes}
    if engine.plugin_path is not None:
        extra |= {"spec_name": "HostOffloadingSpec", "spec_module_path": f"{PACKAGE}.cpu_offload"}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def _device_args(build: EngineBuild, slot: Slot) -> list[str]:
    if build.device == "cpu":
        # On a CPU the utilization is the fraction of the host's memory that each server reserves; with the default,
        # two servers do not fit on one host. bfloat16 is several times slower than float32 without AVX512-BF16.
        return ["--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.15"]
    per_gpu = -(-slot.servers // max(slot.gpus, 1))
    if per_gpu == 1:
        return []
    return ["--gpu-memory-utilization", f"{(1 - RESERVED_GPU_MEMORY) / per_gpu:.2f}"]


def _pool_args(target: Target, build: EngineBuild) -> list[str]:
    on_cpu = build.device == "cpu"
    block_size = target.block_size or (CPU_BLOCK_SIZE if on_cpu else None)
    num_blocks = target.num_gpu_blocks or (CPU_NUM_BLOCKS if on_cpu else None)
    return [
        *(["--block-size", str(block_size)] if block_size else []),
        *(["--num-gpu-blocks-override", str(num_blocks)] if num_blocks else []),
    ]


def _environment(slot: Slot, target: Target, engine: Engine) -> dict[str, str]:
    environment = dict(os.environ) | {
        "PYTHONUNBUFFERED": "1",
        "VLLM_NO_USAGE_STATS": "1",
        _SIDE_CHANNEL_HOST: "127.0.0.1",
        _SIDE_CHANNEL_PORT: str(slot.side_channel_port),
        # Enables /server_info, which reports the connectors' order, and /reset_prefix_cache, which empties caches.
        "VLLM_SERVER_DEV_MODE": "1",
    }
    if Path(str(target.model)).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    on_cpu = engine.build.device == "cpu"
    return environment | (_cpu_environment(engine.plugin_path) if on_cpu else _cuda_environment(slot))


def _cpu_environment(plugin_path: Path | None) -> dict[str, str]:
    environment = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # In spite of --enforce-eager, vLLM compiles the ranking of logprobs: the first load that asks for them, and
        # each new batch shape, waits 10 to 20 s for a C++ compiler (17.6 s against 2.4 s for 64 requests on two cores).
        "TORCH_COMPILE_DISABLE": "1",
    }
    if plugin_path is not None:
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugin_path), inherited]))
        environment["PD_HARNESS_NIXL_PROGRESS_DELAY_US"] = str(NIXL_PROGRESS_DELAY_US)
        environment["PD_HARNESS_QUEUE_PAUSE_US"] = str(QUEUE_PAUSE_US)
        if allowed := os.environ.get("VLLM_PLUGINS"):
            environment["VLLM_PLUGINS"] = ",".join((allowed, *PLUGIN_NAMES))
    return environment


def _cuda_environment(slot: Slot) -> dict[str, str]:
    environment = {"VLLM_KV_CACHE_LAYOUT": "HND", "UCX_NET_DEVICES": "all"}
    if slot.gpus > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot.index % slot.gpus)
    return environment


def _split(arguments: tuple[str, ...]) -> list[str]:
    """The words of arguments that may hold several words each: ``--engine-arg '--max-num-seqs 4'``."""
    return [word for argument in arguments for word in shlex.split(argument)]
