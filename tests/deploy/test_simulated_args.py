"""vLLM's arguments for the simulated pair: those that it models are passed on, the others are refused."""

from dataclasses import replace

import pytest

from harness.catalogue.launching import build_target
from harness.catalogue.presets import PRESETS
from harness.cli.options import parse
from harness.deploy.simulate import separate_argv, sim_argv, sim_config
from harness.deploy.simulated_args import CannotSimulate, simulated_fields
from harness.facts import Role
from harness.sim.__main__ import _parser, config_of
from harness.sim.noise import Noise

TARGET = parse(["--engine", "sim"]).target


def test_an_argument_may_hold_several_words_and_the_last_value_is_used() -> None:
    assert simulated_fields(("--max-num-batched-tokens 64 --max-num-seqs 32", "--max-num-seqs=8")) == {
        "max_num_batched_tokens": 64,
        "max_num_seqs": 8,
    }
    assert simulated_fields(("--no-enable-prefix-caching",)) == {"prefix_caching": False}
    assert simulated_fields(()) == {}


@pytest.mark.parametrize("argument", ["--tensor-parallel-size 2", "--max-num-seqs many", "stray"])
def test_an_unknown_argument_is_refused(argument: str) -> None:
    with pytest.raises(CannotSimulate, match="cannot be started with these arguments"):
        simulated_fields((argument,))


def test_presets_become_configurations() -> None:
    made = {name: build_target(PRESETS[name], TARGET) for name in ("small_steps", "no_prefix_caching", "small_pool")}
    configs = {name: sim_config(target) for name, target in made.items() if target is not None}
    assert configs["small_steps"].max_num_batched_tokens == 64
    assert configs["no_prefix_caching"].of(Role.DECODE).prefix_caching is False
    assert (configs["small_pool"].num_blocks, configs["small_pool"].max_model_len) == (48, 47 * 16)


def test_leases_tiers_and_the_policy_for_failed_loads_reach_the_simulator() -> None:
    made = {name: build_target(PRESETS[name], TARGET) for name in ("short_lease", "small_tier")}
    configs = {name: sim_config(target) for name, target in made.items() if target is not None}
    assert configs["short_lease"].lease_seconds == 3
    assert configs["short_lease"].num_blocks == 128
    assert configs["small_tier"].offload_chunks == 4 * 1024 * 1024 // configs["small_tier"].block_bytes
    assert sim_config(replace(TARGET, kv_load_failure_policy="recompute")).load_failure_policy == "recompute"


def test_different_block_sizes_cannot_be_simulated() -> None:
    target = build_target(PRESETS["unlike_blocks"], TARGET)
    assert target is not None
    with pytest.raises(CannotSimulate, match="32 tokens on prefill and 64 on decode"):
        sim_config(target)


def test_the_process_gets_the_same_configuration() -> None:
    arguments = ("--max-num-seqs 9 --max-model-len 512",)
    target = replace(TARGET, engine_args=arguments, role_args={}, sim_noise="student")
    config = sim_config(target)
    argv = sim_argv(config, {"prefill-0": 1, "decode-0": 2})
    received = config_of(_parser().parse_args(argv[argv.index("harness.sim") + 1 :]))
    assert received == config
    assert received.sim_noise == "student"
    assert received.noise == Noise(), "by default near ties flip"


def test_a_server_with_a_process_of_its_own_gets_the_same_configuration_and_its_ports() -> None:
    target = replace(TARGET, engine_args=("--shutdown-timeout 7",), nixl_config={"kv_lease_duration": 2})
    config = sim_config(target)
    assert (config.shutdown_timeout, config.lease_seconds) == (7, 2)
    argv = separate_argv(config, "decode-1", 81, 56)
    flags = _parser().parse_args(argv[argv.index("harness.sim") + 1 :])
    assert (flags.only, flags.prefill_port, flags.decode_port, flags.side_channel_port) == ("decode-1", [], [81], 56)
    assert replace(config_of(flags), prefills=1) == config


def test_a_run_with_faults_gives_each_server_a_process() -> None:
    assert not TARGET.separate_processes
    assert parse(["--engine", "sim", "--fault", "pause:server=decode-0"]).target.separate_processes
