"""The harness from Python: attach to a deployment or launch one, and make runs on it; each run returns a report.

    import harness

    with harness.simulate() as deployment:
        report = deployment.run(harness.RandomLoad(num_prompts=64, concurrency=16))
    print(report.verdict, report.latencies.ttft.mean())

Import these names from ``harness``. ``async with`` works as well as ``with``; the methods are then awaited. In a
notebook, ``deployment = harness.launch(...).open()`` keeps a deployment until ``deployment.close()``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.api.compared_runs import compare_runs
from harness.api.deployment import AsyncRunningDeployment
from harness.api.opening import Opening, RunningDeployment
from harness.deploy.addresses import address, refuse_two_credentials
from harness.deploy.target import CONNECTORS, OFFLOAD_BYTES, Attachment, Target
from harness.errors import DeployError, HarnessError, UsageError
from harness.facts import Connector, Role
from harness.loads import (
    DatasetLoad,
    NaturalLoad,
    PrefixRepetitionLoad,
    Ramp,
    RandomLoad,
    ShareGptLoad,
    Stages,
    Steady,
    TraceLoad,
)
from harness.observer import SILENT, RunObserver, SilentObserver
from harness.reports import Report
from harness.sim import USUAL, check_kind
from harness.verdict import Check, Finding, Verdict

__all__ = [
    "AsyncRunningDeployment",
    "Check",
    "DatasetLoad",
    "DeployError",
    "Finding",
    "HarnessError",
    "NaturalLoad",
    "PrefixRepetitionLoad",
    "Ramp",
    "RandomLoad",
    "Report",
    "RunObserver",
    "RunningDeployment",
    "ShareGptLoad",
    "SilentObserver",
    "Stages",
    "Steady",
    "TraceLoad",
    "UsageError",
    "Verdict",
    "attach",
    "compare_runs",
    "launch",
    "simulate",
]


def attach(  # noqa: PLR0913 - keyword-only: the flags of the command line
    *,
    prefill_urls: str | Sequence[str],
    decode_urls: str | Sequence[str],
    base_url: str | None = None,
    model: str | None = None,
    served_model_name: str | None = None,
    kv_cache_dtype: str | None = None,
    headers: Mapping[str, str] | None = None,
    num_warmups: int | None = None,
    relays: Sequence[str] = (),
    log_dir: str | Path | None = None,
    observer: RunObserver = SILENT,
) -> Opening:
    """Attach to a deployment that is already running.

    Args:
        prefill_urls: the prefill servers.
        decode_urls: the decode servers.
        base_url: the proxy in front of the servers; None: the harness starts its own proxy.
        model: a directory with the model's config.json, or a hub name in the local cache; bytes are predicted from it.
        served_model_name: default: the first model that the decode server lists.
        kv_cache_dtype: the type of the servers' KV cache, if they were started with one and do not report it.
        headers: HTTP headers sent with every request.
        num_warmups: requests before the first run; default: 8.
        relays: where a relay stands, for faults that need one: ``harness.faults.relays_for`` names them.
        log_dir: directory for the log of the harness's own proxy.
        observer: is informed of progress.

    """
    prefill, decode = _several(prefill_urls), _several(decode_urls)
    if not (prefill and decode):
        raise UsageError(
            "attach needs at least one URL in prefill_urls and one in decode_urls: it reads the servers' counters."
        )
    attachment = Attachment(
        tuple(address(url, "prefill_urls") for url in prefill),
        tuple(address(url, "decode_urls") for url in decode),
        None if base_url is None else address(base_url, "base_url"),
    )
    refuse_two_credentials((*prefill, *decode, base_url or ""), headers or {})
    target = Target(
        attachment=attachment,
        model=model,
        served_model_name=served_model_name,
        kv_cache_dtype=kv_cache_dtype,
        headers=dict(headers or {}),
        num_warmups=num_warmups,
        relays=tuple(relays),
    )
    return Opening(target, log_dir=log_dir, observer=observer)


def launch(  # noqa: PLR0913 - keyword-only: the flags of the command line
    *,
    model: str | None = None,
    connector: str = "multi",
    prefill: int = 1,
    decode: int = 1,
    block_size: int | None = None,
    num_gpu_blocks: int | None = None,
    offload_bytes: int = OFFLOAD_BYTES,
    nixl_config: Mapping[str, Any] | None = None,
    kv_load_failure_policy: str | None = None,
    engine_args: Sequence[str] = (),
    prefill_args: Sequence[str] = (),
    decode_args: Sequence[str] = (),
    engine_python: str | None = None,
    prefill_python: str | None = None,
    decode_python: str | None = None,
    device: str = "auto",
    num_warmups: int | None = None,
    relays: Sequence[str] = (),
    ready_timeout: float = 600.0,
    log_dir: str | Path | None = None,
    observer: RunObserver = SILENT,
) -> Opening:
    """Launch prefill servers, decode servers and a proxy on this machine, until the deployment is closed.

    Args:
        model: a path or a hub name; None: a small canary model made from a seed.
        connector: ``nixl``, ``offloading``, ``multi`` (NIXL first, then offloading), or ``offloading,nixl``.
        prefill: number of prefill servers.
        decode: number of decode servers.
        block_size: tokens per KV block; default: the engine's own.
        num_gpu_blocks: blocks in each server's KV pool.
        offload_bytes: size of each server's offload tier, in bytes.
        nixl_config: the NIXL connector's ``kv_connector_extra_config``.
        kv_load_failure_policy: what decode does with a request whose KV it could not load: ``fail`` or ``recompute``;
            default: the engine's choice.
        engine_args: vLLM's own arguments, for every server.
        prefill_args: vLLM's own arguments, for prefill servers only.
        decode_args: vLLM's own arguments, for decode servers only.
        engine_python: a Python interpreter that has vLLM; default: this one.
        prefill_python: another interpreter for prefill servers.
        decode_python: another interpreter for decode servers.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_warmups: requests before the first run; default: 8.
        relays: where a relay stands, for faults that need one: ``harness.faults.relays_for`` names them.
        ready_timeout: seconds that the servers may take to start.
        log_dir: directory for the servers' logs; default: a temporary directory, kept only after a failure.
        observer: is informed of progress.

    """
    target = Target(
        model=model,
        connectors=_connectors(connector),
        prefill=prefill,
        decode=decode,
        block_size=block_size,
        num_gpu_blocks=num_gpu_blocks,
        offload_bytes=offload_bytes,
        nixl_config=dict(nixl_config or {}),
        kv_load_failure_policy=kv_load_failure_policy,
        engine_args=tuple(engine_args),
        role_args={Role.PREFILL: tuple(prefill_args), Role.DECODE: tuple(decode_args)},
        engine_pythons={Role.PREFILL: prefill_python or engine_python, Role.DECODE: decode_python or engine_python},
        device=device,
        num_warmups=num_warmups,
        relays=tuple(relays),
        ready_timeout=ready_timeout,
    )
    return Opening(target, log_dir=log_dir, observer=observer)


def simulate(  # noqa: PLR0913 - keyword-only: the flags of the command line
    *,
    connector: str = "multi",
    prefill: int = 1,
    decode: int = 1,
    block_size: int | None = None,
    num_gpu_blocks: int | None = None,
    nixl_config: Mapping[str, Any] | None = None,
    kv_load_failure_policy: str | None = None,
    engine_args: Sequence[str] = (),
    num_warmups: int | None = None,
    relays: Sequence[str] = (),
    sim_noise: str = USUAL,
    separate_processes: bool = False,
    log_dir: str | Path | None = None,
    observer: RunObserver = SILENT,
) -> Opening:
    """Start a simulated deployment: ready in a second, without an engine. Arguments are as for :func:`launch`.

    ``sim_noise`` is the kind of noise by which correct answers differ: ``usual``, ``none``, ``student`` (heavy tails),
    ``mixture`` (some positions and some outputs are noisier) or ``quantised`` (logits are rounded to bfloat16).
    ``separate_processes``: whether each server has a process of its own, as faults on a server's process need.

    Raises:
        UsageError: no kind of noise, or no connector, has this name.

    """
    target = Target(
        engine="sim",
        connectors=_connectors(connector),
        prefill=prefill,
        decode=decode,
        block_size=block_size,
        num_gpu_blocks=num_gpu_blocks,
        nixl_config=dict(nixl_config or {}),
        kv_load_failure_policy=kv_load_failure_policy,
        engine_args=tuple(engine_args),
        num_warmups=num_warmups,
        relays=tuple(relays),
        sim_noise=check_kind(sim_noise),
        separate_processes=separate_processes,
    )
    return Opening(target, log_dir=log_dir, observer=observer)


def _several(urls: str | Sequence[str]) -> tuple[str, ...]:
    return (urls,) if isinstance(urls, str) else tuple(urls)


def _connectors(name: str) -> tuple[Connector, ...]:
    if name not in CONNECTORS:
        raise UsageError(f"connector={name!r} is not known. Give one of {', '.join(map(repr, CONNECTORS))}.")
    return CONNECTORS[name]
