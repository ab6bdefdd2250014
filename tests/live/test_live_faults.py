"""Faults on the shared real pair: each is observed and undone, the pair recovers, and nobody is harmed.

Every kind of fault runs on the simulated pair; here are those that real processes, sockets and transfers handle in ways
of their own.
"""

import pytest
from live_faults import KILLED, SHORT

import harness
from harness.checkers.windows import during
from harness.history import FaultHealed, FaultProved, Outcome
from harness.scenario import Altered

pytestmark = pytest.mark.live

LOAD = harness.RandomLoad(num_prompts=60, concurrency=8, input_len=(20, 100), output_len=8)


def _requires_no_harm(report: harness.Report) -> None:
    (proved,), (healed,) = (list(report.history.of(kind)) for kind in (FaultProved, FaultHealed))
    assert proved.evidence
    assert healed.healed, healed.text
    checks = {check.name: check for check in report.checks}
    assert checks["faults"].verdict is harness.Verdict.VALID, checks["faults"].summary
    assert report.verdict is harness.Verdict.VALID, [str(check) for check in report.checks]
    failed = [one for one in report.history.operations() if one.outcome is not Outcome.OK]
    bystanders = [one.request.request_id for one in failed if not during(report.history, [one])]
    assert not bystanders


@pytest.mark.parametrize("fault", SHORT)
def test_the_pair_gets_over_a_fault(pair: harness.RunningDeployment, fault: str) -> None:
    _requires_no_harm(pair.run(LOAD, faults=[fault], verify="sample:4"))


def test_malformed_references_are_refused_and_hurt_nobody(pair: harness.RunningDeployment) -> None:
    report = pair.run_workloads("malformed_references")
    assert report.verdict is harness.Verdict.VALID, [str(check) for check in report.checks]
    sent = [one for one in report.history.operations() if one.request.altered]
    refused = {one.request.altered for one in sent if one.outcome is not Outcome.OK}
    assert refused == {Altered.OUT_OF_RANGE, Altered.NEGATIVE, Altered.TEXT}


def test_the_pair_gets_over_the_death_of_its_prefill_server(pair: harness.RunningDeployment) -> None:
    """The tests after this one find another prefill server than those before it."""
    _requires_no_harm(pair.run(LOAD, faults=[KILLED], verify="sample:4"))
