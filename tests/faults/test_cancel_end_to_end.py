"""Whole runs on the simulated pair in which clients leave: with what it takes, and with a fault that does nothing."""

from pathlib import Path

import pytest

import harness
from harness.checkers import judge
from harness.faults.cancel import Cancel
from harness.history import Ending, FaultProved
from harness.scenario import Purpose, Request
from harness.store import load_run
from harness.verdict import Verdict

LOAD = harness.RandomLoad(num_prompts=48, concurrency=8, output_len=12, seed=4)


@pytest.mark.slow
def test_half_of_the_clients_leave_and_every_output_is_verified(tmp_path: Path) -> None:
    with harness.simulate() as deployment:
        report = deployment.run(
            LOAD, verify="all", faults=["cancel:share=0.5,moment=stream"], result_dir=tmp_path, label="storm"
        )
    assert report.verdict is Verdict.VALID, [(one.name, one.summary) for one in report.judgement.checks]
    left = [one for one in report.history.operations() if one.ended.ending is Ending.LEFT]
    assert 12 <= len(left) <= 36
    tokens = [one.ended.output_tokens for one in left]
    assert 1 <= min(tokens) < max(tokens) <= 12
    forced = {one.request.about for one in report.history.operations() if one.request.purpose is Purpose.FORCING}
    assert {one.request.request_id for one in left} <= forced
    (proved,) = report.history.of(FaultProved)
    # A busy client reads several events at once, and may have more tokens than it was to leave after, even all of them.
    words = f"{len(left)} of 48 clients closed their connections after {min(tokens)} to {max(tokens)} tokens"
    assert words in proved.evidence
    (stored,) = tmp_path.glob("*storm*")
    facts, history = load_run(stored)
    assert judge(facts, history).verdict is Verdict.VALID


@pytest.mark.slow
def test_a_fault_that_does_nothing_makes_the_run_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchanged(_fault: Cancel, request: Request) -> Request:
        return request

    monkeypatch.setattr(Cancel, "changed", unchanged)
    with harness.simulate() as deployment:
        report = deployment.run(LOAD, verify="sample:4", faults=["cancel:share=0.5,moment=stream"])
    verdicts = {one.name: one.verdict for one in report.judgement.checks}
    assert report.verdict is Verdict.UNKNOWN
    assert [name for name, verdict in verdicts.items() if verdict is not Verdict.VALID] == ["faults"]
