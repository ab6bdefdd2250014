"""Presets: the deployments that workloads are made for, and that the harness can launch by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector

NIXL, OFFLOADING = Connector.NIXL, Connector.OFFLOADING


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How a launched deployment differs from the default one; arguments are those of ``vllm serve``."""

    name: str
    summary: str
    connectors: tuple[Connector, ...] = (NIXL, OFFLOADING)
    prefill: int = 1
    decode: int = 1
    num_gpu_blocks: int | None = None
    offload_bytes: int | None = None
    engine_args: tuple[str, ...] = ()
    prefill_args: tuple[str, ...] = ()
    decode_args: tuple[str, ...] = ()
    nixl_config: Mapping[str, Any] = field(default_factory=dict)
    """The NIXL connector's ``kv_connector_extra_config``."""
    other_engine: bool = False
    """Whether prefill and decode need different engines, which only the user can name."""


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(name="multi", summary="MultiConnector[nixl, offloading]: the default"),
        Preset(
            name="offloading_first",
            summary="MultiConnector[offloading, nixl]: the offload tier is asked before NIXL",
            connectors=(OFFLOADING, NIXL),
        ),
        Preset(name="nixl", summary="NIXL without MultiConnector", connectors=(NIXL,)),
        Preset(name="offloading", summary="offload tier without NIXL: no KV transfer", connectors=(OFFLOADING,)),
        Preset(
            name="small_pool",
            summary="block pools smaller than the load: eviction and preemption",
            num_gpu_blocks=48,
            engine_args=("--max-model-len 1024",),
        ),
        Preset(
            name="small_tier",
            summary="offload tiers of 4 MiB, smaller than a prompt: refused stores and eviction",
            offload_bytes=4 * 1024 * 1024,
        ),
        Preset(
            name="short_lease",
            summary="leases of 3 s and small pools: blocks are given away before a decode server that waits reads them",
            num_gpu_blocks=128,
            engine_args=("--max-model-len 1024",),
            nixl_config={"kv_lease_duration": 3},
        ),
        Preset(
            name="small_steps",
            summary="engine steps of 64 tokens: longer prompts are prefilled in chunks",
            engine_args=("--max-num-batched-tokens 64 --max-num-seqs 32",),
        ),
        Preset(
            name="no_prefix_caching",
            summary="prefix caching off on all servers",
            engine_args=("--no-enable-prefix-caching",),
        ),
        Preset(
            name="unlike_blocks",
            summary="blocks of 32 tokens on prefill, of 64 on decode",
            prefill_args=("--block-size 32",),
            decode_args=("--block-size 64",),
        ),
        Preset(
            name="reused_blocks",
            summary="leases of five seconds and small block pools: blocks are soon released and reused",
            num_gpu_blocks=48,
            engine_args=("--max-model-len 1024",),
            nixl_config={"kv_lease_duration": 5},
        ),
        Preset(name="two_by_two", summary="two prefill and two decode servers", prefill=2, decode=2),
        Preset(
            name="unlike_versions",
            summary="different engine versions on prefill and decode",
            other_engine=True,
            # Without this, vLLM refuses a peer of another version in the NIXL handshake of every request.
            nixl_config={"enforce_handshake_compat": False},
        ),
    )
}
