"""Whole runs on simulated servers, which read expired blocks as vLLM 0.32.0 does: they do not look at the lease."""

from typing import Any

import pytest

import harness
from harness.faults import Site
from harness.faults import lease as lease_fault
from harness.faults.pause import Pause
from harness.history import FaultProved, Outcome, Scraped
from harness.observe.counters import read_counters
from harness.verdict import Verdict

LOAD = harness.RandomLoad(num_prompts=30, concurrency=10, input_len=(20, 100), output_len=8, seed=2)
PAIR: dict[str, Any] = {"separate_processes": True, "num_gpu_blocks": 128, "num_warmups": 1}
SHORT = {"kv_lease_duration": 2}
"""Seconds for which prefill keeps blocks of requests that failed on decode."""
FAILED = (
    # Stopped before the first request comes, decode has read nothing when prefill dies.
    "pause:server=decode-0,part=engine,after=0,for=2",
    "kill:server=prefill-0,when=prefilled,for=0,provokes=nixl_failed_transfers",
)


def verdicts(report: "harness.Report") -> dict[str, Verdict]:
    return {one.name: one.verdict for one in report.judgement.checks}


@pytest.mark.slow
def test_answers_from_blocks_that_were_given_away_are_found() -> None:
    with harness.simulate(**PAIR, nixl_config={"kv_lease_duration": 1}) as deployment:
        report = deployment.run(LOAD, verify="all", faults=["lease:after=0,for=1"])
    found = verdicts(report)
    (proved,) = report.history.of(FaultProved)
    assert "expired requests" in proved.evidence
    assert found.pop("outputs") is Verdict.INVALID
    assert found["faults"] is found["failed_transfers"] is found["settled"] is Verdict.VALID


@pytest.mark.slow
def test_a_decode_server_that_is_not_stopped_lets_nothing_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_pause: Pause, _site: Site) -> str:
        return ""

    monkeypatch.setattr(Pause, "strike", nothing)
    monkeypatch.setattr(lease_fault, "_PATIENCE_S", 1.0)
    with harness.simulate(**PAIR, nixl_config={"kv_lease_duration": 6}) as deployment:
        report = deployment.run(LOAD, verify="sample:4", faults=["lease:after=0,for=1"])
    assert report.verdict is Verdict.UNKNOWN
    assert [name for name, verdict in verdicts(report).items() if verdict is not Verdict.VALID] == ["faults"]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fail", "recompute"])
def test_requests_whose_prefill_server_died_before_the_transfer(policy: str) -> None:
    """With recompute all that reached decode are answered, rightly; with fail each of them ends with a clear error.

    The count is exact: a request whose transfer failed and that was answered all the same would show.
    """
    with harness.simulate(**PAIR, kv_load_failure_policy=policy, nixl_config=SHORT) as deployment:
        report = deployment.run(LOAD, verify="all", faults=FAILED)
    assert report.verdict is Verdict.VALID, [(one.name, one.summary) for one in report.judgement.checks]
    failed = [one for one in report.history.operations() if one.request.of_load and one.outcome is not Outcome.OK]
    by_decode = [one for one in failed if one.ended.decode_server]
    assert failed_reads(report) > 0
    assert len(by_decode) == (failed_reads(report) if policy == "fail" else 0)
    assert all("Internal server error" in one.ended.cause for one in by_decode)


def failed_reads(report: harness.Report) -> int:
    """Reads and handshakes that decode counted as failed during the load, without failed notifications.

    After a failed notification the request has its KV, and is rightly answered: prefill may die between the two.
    """
    readings = [one for one in report.history.of(Scraped) if (one.server, one.phase) == ("decode-0", "load")]
    before, after = (read_counters(one) for one in readings)
    failed, unnoticed = (
        (getattr(after, name) or 0) - (getattr(before, name) or 0)
        for name in ("nixl_failed_transfers", "nixl_failed_notifications")
    )
    return int(failed - unnoticed)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "bug"), [("fail", "failed_load_200"), ("recompute", "recompute_wrong_offset")])
def test_a_failed_load_that_is_handled_badly_is_found(policy: str, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PD_HARNESS_SIM_PLANT", f"{bug}=0.3")
    with harness.simulate(**PAIR, kv_load_failure_policy=policy, nixl_config=SHORT) as deployment:
        report = deployment.run(LOAD, verify="sample:8", faults=FAILED)
    assert verdicts(report)["outputs"] is Verdict.INVALID
