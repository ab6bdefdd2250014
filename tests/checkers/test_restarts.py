"""A restarted server is judged by what it counted since: what is right is not accused, and bugs are found."""

import pytest
from sim_restart import RestartedRun, deployment_of

from harness.checkers import judge
from harness.verdict import Check, Verdict

COUNTED = ("faults", "token_sources", "nixl_bytes", "offload_bytes", "failed_transfers", "settled")


def checks(run: RestartedRun) -> dict[str, Check]:
    return {check.name: check for check in judge(deployment_of(run), run.history).checks if check.name in COUNTED}


def wrong(run: RestartedRun) -> dict[str, str]:
    return {name: check.summary for name, check in checks(run).items() if check.verdict is not Verdict.VALID}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("blocks", [60, 400])
@pytest.mark.parametrize("killed", ["prefill-0", "decode-0"])
def test_a_restart_accuses_nobody(killed: str, blocks: int, seed: int) -> None:
    assert wrong(RestartedRun(killed, seed=seed, blocks=blocks)) == {}


def test_decode_that_computes_silently_after_its_restart_is_found() -> None:
    found = checks(RestartedRun("decode-0", "dropped_params"))["token_sources"]
    phases = {one.phase for one in found.comparisons if one.verdict is Verdict.INVALID and one.server == "decode-0"}
    assert "load" in phases
    assert any("decode-cache" in phase for phase in phases)


@pytest.mark.parametrize("bug", ["bytes_doubled", "source_doubled"])
def test_wrong_counts_of_decode_after_its_restart_are_found(bug: str) -> None:
    assert Verdict.INVALID in {check.verdict for check in checks(RestartedRun("decode-0", bug)).values()}
