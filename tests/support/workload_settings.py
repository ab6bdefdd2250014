"""Settings and deployments for the tests of workloads."""

from dataclasses import replace

from harness.catalogue.presets import PRESETS, Preset
from harness.catalogue.setting import Setting
from harness.facts import Connector, Deployment, KVGeometry, Role, Server

SETTING = Setting(
    prefill_block_size=32,
    decode_block_size=32,
    vocab_size=4096,
    special_token_ids=tuple(range(7)),
    max_model_len=1024,
    prefill_blocks=48,
    decode_blocks=48,
    tier_blocks=16,
    batch_tokens=64,
    prefill=1,
    decode=1,
    salt="one",
)


def server(role: Role, number: int = 0, **changes: object) -> Server:
    plain = Server(
        f"{role}-{number}",
        role,
        f"http://{role}-{number}",
        block_size=32,
        num_blocks=1024,
        prefix_caching=True,
        version="0.32.0",
        max_model_len=8192,
        max_num_batched_tokens=2048,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # the tests name the fields


def deployment(**changes: object) -> Deployment:
    own = {name: changes.pop(name) for name in [*changes] if name in Server.__dataclass_fields__}
    plain = Deployment(
        servers=(server(Role.PREFILL), server(Role.DECODE)),
        proxy_url="http://proxy",
        model="canary",
        vocab_size=4096,
        special_token_ids=tuple(range(7)),
        geometry=KVGeometry(4, 4, 64, 64, 4),
    )
    own = {"connectors": (Connector.NIXL, Connector.OFFLOADING), "offload_block_size": 32, **own}
    return replace(plain, **changes).with_servers(offload_prompt_only=True, **own)  # type: ignore[arg-type]  # the tests name the fields


def facts_of(preset: Preset) -> Deployment:
    """The facts of a deployment launched from the preset, written by hand."""
    changes: dict[str, dict[str, object]] = {
        "small_pool": {"num_blocks": 48, "max_model_len": 1024},
        "reused_blocks": {"num_blocks": 48, "max_model_len": 1024},
        "small_tier": {"offload_blocks": 16},
        "short_lease": {"num_blocks": 128},
        "small_steps": {"max_num_batched_tokens": 64},
        "no_prefix_caching": {"prefix_caching": False},
    }
    of_decode: dict[str, dict[str, object]] = {
        "unlike_blocks": {"block_size": 64},
        "unlike_versions": {"version": "0.31.0"},
    }
    ours, decode = changes.get(preset.name, {}), of_decode.get(preset.name, {})
    return deployment(
        connectors=preset.connectors,
        servers=(
            *(server(Role.PREFILL, number, **ours) for number in range(preset.prefill)),
            *(server(Role.DECODE, number, **ours, **decode) for number in range(preset.decode)),
        ),
    )


HOMES = {name: facts_of(preset) for name, preset in PRESETS.items()}
