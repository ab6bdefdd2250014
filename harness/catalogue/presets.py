"""Deployments that the catalogue's workloads are made for, by name: how each differs from the default one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.facts import Connector

NIXL, OFFLOADING = Connector.NIXL, Connector.OFFLOADING


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A deployment to launch. The arguments are vLLM's own."""

    name: str
    summary: str
    connectors: tuple[Connector, ...] = (NIXL, OFFLOADING)
    prefill: int = 1
    decode: int = 1
    num_gpu_blocks: int | None = None
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
            summary="MultiConnector[offloading, nixl]: the tier is asked before the peer",
            connectors=(OFFLOADING, NIXL),
        ),
        Preset(name="nixl", summary="NIXL alone", connectors=(NIXL,)),
        Preset(name="offloading", summary="offloading alone: nothing is transferred", connectors=(OFFLOADING,)),
        Preset(
            name="small_pool",
            summary="block pools too small for the load: eviction and preemption",
            num_gpu_blocks=48,
            engine_args=("--max-model-len 1024",),
        ),
        Preset(
            name="small_steps",
            summary="engine steps of 64 tokens: every longer prompt is prefilled in chunks",
            engine_args=("--max-num-batched-tokens 64 --max-num-seqs 32",),
        ),
        Preset(
            name="no_prefix_caching",
            summary="prefix caching off on both sides",
            engine_args=("--no-enable-prefix-caching",),
        ),
        Preset(
            name="unlike_blocks",
            summary="prefill with blocks of 32 tokens, decode of 64",
            prefill_args=("--block-size 32",),
            decode_args=("--block-size 64",),
        ),
        Preset(name="two_by_two", summary="two prefill and two decode servers", prefill=2, decode=2),
        Preset(
            name="unlike_versions",
            summary="prefill and decode of different engine versions",
            other_engine=True,
            # vLLM refuses a peer of another version in NIXL's handshake, with every request, unless told not to.
            nixl_config={"enforce_handshake_compat": False},
        ),
    )
}
