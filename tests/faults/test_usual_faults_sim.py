"""Every usual fault, caused on a simulated pair with a process for each server: observed, healed, nobody harmed."""

from collections.abc import Iterator

import pytest

import harness
from harness.faults import USUAL, parse_fault, relays_for
from harness.verdict import FindingKind

pytestmark = pytest.mark.slow

_LEASE = {"kv_lease_duration": 2}
"""Seconds. With vLLM's 30, each fault that leaves blocks to their lease would take half a minute."""
_WRONG = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK, FindingKind.CACHE)


@pytest.fixture(scope="module")
def deployment() -> Iterator[harness.RunningDeployment]:
    relays = relays_for([parse_fault(text) for text in USUAL])
    with harness.simulate(separate_processes=True, relays=relays, nixl_config=_LEASE) as running:
        yield running


@pytest.mark.parametrize("fault", USUAL)
def test_a_usual_fault_is_observed_healed_and_harms_nobody(deployment: harness.RunningDeployment, fault: str) -> None:
    # An idle gap is one only if the load goes on long enough for connections to fall silent and be used again.
    idle = "how=idle" in fault
    times = (
        "" if fault.startswith("cancel") else ",after=0.2" + ("" if "for=" in fault else f",for={4 if idle else 0.5}")
    )
    load = harness.RandomLoad(num_prompts=600 if idle else 60, concurrency=16)
    report = deployment.run(load, faults=[fault + times], verify="sample:4")
    checks = {check.name: check for check in report.checks}
    assert checks["faults"].verdict is harness.Verdict.VALID, checks["faults"].summary
    assert not [finding for finding in report.findings if finding.kind in _WRONG]
    assert report.verdict is not harness.Verdict.INVALID, [str(check) for check in report.checks]
