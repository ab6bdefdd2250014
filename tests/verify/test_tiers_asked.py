"""Offload tiers of any connector are probed if the prefix caches in front of them may be emptied."""

from dataclasses import replace

import counted_run
import pytest
from sim_history import SimRun, load

from harness.checkers import judge
from harness.cli.options import parse
from harness.facts import Connector, Deployment, Role
from harness.scenario import Purpose, Route
from harness.sim import PlantedBug, SimConfig, SimPair
from harness.verdict import FindingKind, Verdict
from harness.verify.asking import verified
from harness.verify.judging import outputs

LAUNCHED = replace(
    counted_run.DEPLOYMENT,
    servers=tuple(replace(one, block_size=16, offload_block_size=16) for one in counted_run.DEPLOYMENT.servers),
)
ATTACHED = replace(LAUNCHED, launched=False)
UNKNOWN_TIER = ATTACHED.with_servers(
    connectors=(Connector.NIXL,), unknown_connectors=("LMCacheConnectorV1",), asked_before_unknown=1
)


def ran(deployment: Deployment, *flags: str, bugs: tuple[PlantedBug, ...] = ()) -> SimRun:
    """A load through a pair with a tier, verified as the command ``run`` does."""
    run = SimRun(SimPair(SimConfig(bugs=bugs, seed=4), lambda: 0.0))
    verify(run, deployment, *flags)
    return run


def verify(run: SimRun, deployment: Deployment, *flags: str) -> None:
    options = parse(["run", "--verify", "all", "--concurrency", "32", *flags])
    how = options.verify(deployment, salt="run")
    for scenario in verified([load(24, seed=4)], deployment, lambda: run.history, how):
        run.run(scenario)


def emptied(run: SimRun) -> set[tuple[Route, int | None]]:
    return {(o.request.route, o.request.server) for o in run.history.operations() if o.request.purpose is Purpose.RESET}


BOTH = {(Route.DECODE, 0), (Route.PREFILL, 0)}


def test_the_caches_of_a_deployment_that_the_harness_launched_are_emptied_for_the_tiers() -> None:
    run = ran(LAUNCHED)
    assert emptied(run) == BOTH
    assert any("decode-0's offload tier" in note for note in outputs(LAUNCHED, run.history).notes)


@pytest.mark.parametrize("deployment", [ATTACHED, UNKNOWN_TIER], ids=["offloading", "unknown"])
def test_caches_that_the_harness_did_not_launch_are_not_emptied_by_default(deployment: Deployment) -> None:
    run = ran(deployment)
    assert not emptied(run)
    notes = " ".join(outputs(deployment, run.history).notes)
    assert "not probed: prefill-0's offload tier" in notes
    assert "--probe-tiers lets the harness empty" in notes


def test_caches_that_the_harness_did_not_launch_are_emptied_if_the_flag_allows_it() -> None:
    run = ran(ATTACHED, "--probe-tiers")
    assert emptied(run) == BOTH
    assert not any("not probed" in note for note in outputs(ATTACHED, run.history).notes)


def test_shrink_has_the_flag_too() -> None:
    assert parse(["shrink", "runs/latest", "--probe-tiers"]).verification.probe_tiers
    assert not parse(["shrink", "runs/latest"]).verification.probe_tiers


@pytest.mark.slow
def test_a_wrong_answer_from_a_tier_of_an_unknown_connector_is_invalid() -> None:
    run = ran(UNKNOWN_TIER, "--probe-tiers", bugs=(PlantedBug("offload_stores_wrong"),))
    check = outputs(UNKNOWN_TIER, run.history)
    assert check.verdict is Verdict.INVALID
    assert {(one.kind, one.server) for one in check.findings} == {(FindingKind.CACHE, "decode-0")}
    assert all("requested again through decode-0's offload tier" in one.text for one in check.findings)


def test_an_unprobed_tier_of_an_unknown_connector_is_never_valid() -> None:
    run = ran(UNKNOWN_TIER, bugs=(PlantedBug("offload_stores_wrong"),))
    verdict = judge(UNKNOWN_TIER, run.history).verdict
    assert verdict is Verdict.UNKNOWN
    notes = " ".join(outputs(UNKNOWN_TIER, run.history).notes)
    assert "decode-0's offload tier (LMCacheConnectorV1)" in notes


def test_only_servers_that_have_a_tier_are_emptied() -> None:
    servers = tuple(
        replace(one, unknown_connectors=(), connectors=(Connector.NIXL,)) if one.role is Role.PREFILL else one
        for one in UNKNOWN_TIER.servers
    )
    run = ran(replace(UNKNOWN_TIER, servers=servers), "--probe-tiers")
    assert emptied(run) == {(Route.DECODE, 0)}
    assert not run.history.operations(phase="probe-prefill-tier")
    assert run.history.operations(phase="probe-decode-tier")


def test_a_tier_that_restored_nothing_is_reported() -> None:
    deployment = replace(UNKNOWN_TIER, launched=True)
    run = SimRun(SimPair(SimConfig(seed=4, connectors=(Connector.NIXL,)), lambda: 0.0))
    verify(run, deployment)
    note = next(note for note in outputs(deployment, run.history).notes if "decode-0's offload tier" in note)
    assert "none of them is shown to be read from there" in note
    assert "the tier restored nothing" in note
