"""Workloads under faults on a simulated pair, end to end: what they end as, and with a fault that does nothing."""

from collections.abc import Iterator
from signal import Signals

import pytest

import harness
from harness.faults.proc import ProcessTable
from harness.history import FaultPlanned, FaultProved
from harness.verdict import Verdict

pytestmark = pytest.mark.slow

PAUSE = "pause:server=decode-0,after=0,for=0.3"


@pytest.fixture(scope="module")
def deployment() -> Iterator[harness.RunningDeployment]:
    with harness.simulate(separate_processes=True) as running:
        yield running


def verdicts(report: harness.Report) -> dict[str, Verdict | None]:
    return {row.workload: row.verdict for row in report.rows}


def test_two_workloads_are_struck_once_each_and_all_their_outputs_are_verified(
    deployment: harness.RunningDeployment,
) -> None:
    report = deployment.run_workloads("two_identical", "shared_blocks", faults=[PAUSE])
    assert verdicts(report) == {"two_identical": Verdict.VALID, "shared_blocks": Verdict.VALID}, str(report)
    names = ["shared_blocks/pause-1", "two_identical/pause-1"]
    assert sorted(one.fault for one in report.history.of(FaultPlanned)) == names
    assert sorted(one.fault for one in report.history.of(FaultProved)) == names
    assert report.outputs.unverified == report.outputs.mismatch == 0


def test_a_fault_that_does_nothing_makes_the_row_unknown(
    deployment: harness.RunningDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_table: ProcessTable, _pid: int, _number: Signals) -> bool:
        return True

    monkeypatch.setattr(ProcessTable, "send", nothing)
    report = deployment.run_workloads("two_identical", faults=[PAUSE])
    assert verdicts(report) == {"two_identical": Verdict.UNKNOWN}
    assert report.verdict is Verdict.UNKNOWN
    [row] = report.rows
    assert row.judgement is not None
    assert [one.name for one in row.judgement.checks if one.verdict is not Verdict.VALID] == ["faults"]
    assert not list(report.history.of(FaultProved))


def test_a_workload_that_is_over_before_the_fault_is_unknown_and_says_what_to_do(
    deployment: harness.RunningDeployment,
) -> None:
    report = deployment.run_workloads("two_identical", faults=["pause:server=decode-0,after=60"])
    assert verdicts(report) == {"two_identical": Verdict.UNKNOWN}
    assert "after=0" in str(report)
