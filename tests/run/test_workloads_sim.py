"""Every workload on a simulated deployment of its own kind: every answer is verified, counters are as predicted."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from harness.catalogue.background import beside_load
from harness.catalogue.choice import catalogue
from harness.catalogue.needs import unmet
from harness.catalogue.presets import PRESETS
from harness.catalogue.registry import CATALOGUE, Workload
from harness.catalogue.setting import Setting
from harness.checkers import judge_scenario
from harness.clock import MonotonicClock
from harness.facts import Deployment
from harness.history import ClientHealth, History, RunStarted
from harness.observe.settle import FIRST_PAUSE
from harness.proxy import start_proxy
from harness.reports.assertion import explain
from harness.run import Recorder, Sending, carry_out
from harness.sim import SimConfig, start_sim
from harness.verdict import FindingKind, Judgement, Verdict
from harness.verify.asking import VerifyOptions, VerifyPolicy

SMALL: dict[str, Any] = {"num_blocks": 512, "max_model_len": 1024, "step_seconds": 0.001}
BY_PRESET: Mapping[str, Mapping[str, Any]] = {
    "small_pool": {"num_blocks": 48, "max_model_len": 512},
    "reused_blocks": {"num_blocks": 48, "max_model_len": 512, "lease_seconds": 3.0},
    "small_tier": {"offload_chunks": 16},
    # Steps so slow that the last requests wait for longer than the lease.
    "short_lease": {"num_blocks": 128, "lease_seconds": 3, "step_seconds": 0.012},
    "small_steps": {"max_num_batched_tokens": 64, "max_num_seqs": 32},
    "no_prefix_caching": {"prefix_caching": False},
    "unlike_blocks": {"decode": {"block_size": 32}},
    "unlike_versions": {"decode": {"version": "0.31.0"}},
}
NOT_VALID = {
    # The first choice's notification frees blocks that the other choices still read.
    "several_choices": "failed_transfers",
}
"""Checks that fail for a workload because of a fault of the engine."""
WRONG = ("used_after_reuse", "kept_past_lease", "other_blocks")
"""Workloads that find wrong outputs, since the engine takes a reference as it comes."""
FATAL = ("truncated_reference", "empty_reference")
QUICK = {
    *("short_prompt", "partial_decode_hit", "direct_decode", "offload_recovery", "stop_strings", "several_choices"),
}
"""Some workloads of each kind; the other workloads are in the slow tier."""
HERE = [
    pytest.param(entry, marks=() if entry.name in QUICK else pytest.mark.slow, id=entry.name)
    for entry in catalogue()
    if entry.home != "unlike_blocks" and not entry.alone and entry.name not in WRONG
]


class Brisk(MonotonicClock):
    """Makes pauses between readings of counters a sixth as long: steps here take a third of the usual time, or less."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 6 if seconds >= FIRST_PAUSE else seconds)


def config(preset: str) -> SimConfig:
    chosen = PRESETS[preset]
    sides = {"prefills": chosen.prefill, "decodes": chosen.decode, "connectors": chosen.connectors}
    return SimConfig(**{"eos_rate": 0.0, **SMALL, **sides, **BY_PRESET.get(preset, {})})


@asynccontextmanager
async def simulated(preset: str) -> AsyncIterator[Deployment]:
    sim = await start_sim(config(preset))
    proxy = await start_proxy(sim.prefill_urls, sim.decode_urls)
    try:
        facts = sim.facts(proxy.url)
        step = sim.config.max_num_batched_tokens
        yield replace(facts, servers=tuple(replace(one, max_num_batched_tokens=step) for one in facts.servers))
    finally:
        await proxy.stop()
        await sim.stop()


async def run(entry: Workload, background: int = 0, *, verify: bool = True) -> tuple[Judgement, History]:
    record, clock = Recorder(), Brisk()
    how = VerifyOptions(policy=VerifyPolicy.parse("all"), salt="verification", probe_tiers=True)
    record(RunStarted(0.0, (), 0, "test", None, (entry.name,)))
    async with simulated(entry.home) as deployment:
        assert unmet(entry.needs, deployment) is None
        setting = Setting.of(deployment)
        scenario = entry(setting)
        scenario = beside_load(scenario, setting, background) if background else scenario
        carried = await carry_out(
            [scenario],
            deployment,
            sending=Sending(settle_timeout=5.0),
            verify=how if verify else None,
            record=record,
            clock=clock,
        )
    whole = carried.judgement
    return judge_scenario(deployment, carried.history, whole, entry.name, provokes=entry.provokes), carried.history


def check(judgement: Judgement, name: str) -> str:
    """A check's verdict and summary; a failing test shows both."""
    found = next(check for check in judgement.checks if check.name == name)
    return found.verdict.value if found.verdict is Verdict.VALID else f"{found.verdict}: {found.summary}"


@pytest.mark.parametrize("entry", HERE)
async def test_every_answer_is_verified_and_every_counter_as_predicted(entry: Workload) -> None:
    judgement, _ = await run(entry)
    assert judgement.outputs.requests == judgement.outputs.exact + judgement.outputs.tie > 0
    wrong = {check.name for check in judgement.checks if check.verdict is not Verdict.VALID}
    assert wrong <= {NOT_VALID.get(entry.name)}, explain(entry.name, judgement)
    assert entry.provokes is None or check(judgement, "provoked") == "valid"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in WRONG[1:]] + list(WRONG[:1]))
async def test_outputs_made_from_other_blocks_are_found_and_nothing_else_is(name: str) -> None:
    judgement, history = await run(CATALOGUE[name])
    found = next(check for check in judgement.checks if check.name == "outputs")
    sent = {one.request.request_id for one in history.operations(phase="send") if one.request.reference}
    assert {finding.request for finding in found.findings if finding.kind is FindingKind.WRONG_OUTPUT} == sent
    assert {check.name for check in judgement.checks if check.verdict is not Verdict.VALID} == {"outputs"}


@pytest.mark.parametrize("name", FATAL)
async def test_a_reference_that_ends_the_engine_is_found(name: str) -> None:
    judgement, _ = await run(CATALOGUE[name], verify=False)
    assert check(judgement, "completion").startswith("invalid")
    assert "EngineDead" in check(judgement, "completion")


@pytest.mark.slow
async def test_background_requests_are_served_verified_and_accounted_for() -> None:
    judgement, history = await run(CATALOGUE["multi_block"], background=3)
    plain, _ = await run(CATALOGUE["multi_block"])
    asked = {operation.request.request_id for operation in history.operations(phase="cold")}
    assert len(asked) >= 4
    assert judgement.outputs.exact + judgement.outputs.tie == len(asked) > plain.outputs.requests
    assert check(judgement, "completion") == "valid"
    again = {o.request.about for o in history.operations() if o.request.about is not None}
    assert asked < again
    assert not list(history.of(ClientHealth))[1:]
