"""Builds the launch target of a preset."""

from dataclasses import replace

from harness.catalogue.presets import Preset
from harness.deploy.target import Target
from harness.facts import Role


def build_target(preset: Preset, target: Target) -> Target | None:
    """The user's ``target`` with the preset applied; the user's arguments come last and override the preset's.

    None if the preset needs two different engines and the user named only one.
    """
    if preset.other_engine and len(set(target.engine_pythons.values())) == 1:
        return None
    ours = {Role.PREFILL: preset.prefill_args, Role.DECODE: preset.decode_args}
    return replace(
        target,
        connectors=preset.connectors,
        prefill=preset.prefill,
        decode=preset.decode,
        nixl_config={**preset.nixl_config, **target.nixl_config},
        num_gpu_blocks=preset.num_gpu_blocks or target.num_gpu_blocks,
        offload_bytes=preset.offload_bytes or target.offload_bytes,
        engine_args=(*preset.engine_args, *target.engine_args),
        role_args={role: (*ours[role], *target.role_args.get(role, ())) for role in Role},
    )
