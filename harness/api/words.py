"""The command line equivalent to a call of the API. It is stored with the run, for ``check`` and ``shrink``."""

import json
from collections.abc import Iterator
from dataclasses import fields

from harness.deploy.target import Target
from harness.facts import Role
from harness.fleet import Workers
from harness.loads import Load

_FLAGS = {
    "engine": "--engine",
    "model": "--model",
    "served_model_name": "--served-model-name",
    "kv_cache_dtype": "--kv-cache-dtype",
    "prefill": "--prefill",
    "decode": "--decode",
    "block_size": "--block-size",
    "num_gpu_blocks": "--num-gpu-blocks",
    "offload_bytes": "--offload-bytes",
    "kv_load_failure_policy": "--kv-load-failure-policy",
    "device": "--device",
    "ready_timeout": "--ready-check-timeout-sec",
    "num_warmups": "--num-warmups",
    "sim_noise": "--sim-noise",
}
"""Flags whose value is a field of the target, unchanged."""


def target_words(target: Target) -> Iterator[str]:
    """Flags that describe the deployment; flags with their default value are left out."""
    default = Target()
    changed = {one.name for one in fields(Target) if getattr(target, one.name) != getattr(default, one.name)}
    if target.attachment is not None:
        if target.attachment.base_url is not None:
            yield from ("--base-url", target.attachment.base_url)
        yield from (word for url in target.attachment.prefill_urls for word in ("--prefill-url", url))
        yield from (word for url in target.attachment.decode_urls for word in ("--decode-url", url))
    yield from (word for name, value in target.headers.items() for word in ("--header", f"{name}={value}"))
    yield from (word for name in _FLAGS if name in changed for word in (_FLAGS[name], str(getattr(target, name))))
    if "connectors" in changed:
        yield from ("--connector", ",".join(target.connectors))
    if "nixl_config" in changed:
        yield from ("--nixl-config", json.dumps(dict(target.nixl_config)))
    yield from (f"--engine-arg={argument}" for argument in target.engine_args)
    for role in Role:
        yield from (f"--{role}-arg={argument}" for argument in target.role_args.get(role, ()))
        if (python := target.engine_pythons.get(role)) is not None:
            yield from (f"--{role}-python", python)


def load_words(load: Load) -> Iterator[str]:
    """Flags that describe the load."""
    return load.words()


def workers_words(workers: Workers) -> Iterator[str]:
    """Flags that say from where the load is sent."""
    if workers.number is not None:
        yield from ("--workers", str(workers.number))
    if workers.ray is not None:
        yield from ("--ray", workers.ray)
