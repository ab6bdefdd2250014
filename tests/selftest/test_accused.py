"""Which requests a report names although the planted bug did not affect them."""

from dataclasses import replace

import pytest

from harness.history import Ended, Entry, History, Outcome, Sent
from harness.scenario import Purpose, Request, Route
from harness.selftest import make_report, run_trial, table_lines
from harness.selftest.accused import naming, unaffected
from harness.selftest.loads import COLD, load_for
from harness.selftest.trial import Trial
from harness.sim import Ledger
from harness.verdict import Finding, FindingKind, Verdict

PROBE = Request("a-probe", (1, 2, 3), route=Route.DECODE, purpose=Purpose.PROBE, about="a")
FORCING = Request("a-forced", (1, 2, 3), route=Route.PREFILL, purpose=Purpose.FORCING, about="a")


def accused(kind: FindingKind, ledger: Ledger, *verifying: Request) -> set[str]:
    """Whether a finding about the request ``a`` accuses it."""
    entries: list[Entry] = []
    for request in (Request("a", (1, 2, 3)), *verifying):
        entries += [Sent(1.0, request, "s", "p", 1.0), Ended(2.0, request.request_id, Outcome.OK)]
    return unaffected([Finding("a", "it is wrong", kind, request="a")], History(tuple(entries)), ledger)


@pytest.mark.parametrize("kind", [FindingKind.WRONG_OUTPUT, FindingKind.LEAK, FindingKind.CACHE, FindingKind.OTHER])
def test_an_affected_request_is_named_rightly_and_another_is_not(kind: FindingKind) -> None:
    struck = Ledger()
    struck.strike("burst", "a")
    for ledger in (Ledger(wrong={"a"}), Ledger(victims={"a"}), struck):
        assert accused(kind, ledger) == set()
    assert accused(kind, Ledger(wrong={"b"}, victims={"c"})) == {"a"}


def test_a_prompt_whose_probe_read_wrong_kv_is_named_rightly_as_to_the_cache_alone() -> None:
    ledger = Ledger(wrong={"a-probe", "a-forced"})
    assert accused(FindingKind.CACHE, ledger, PROBE) == set()
    assert accused(FindingKind.CACHE, ledger, replace(PROBE, about="b")) == {"a"}, "another prompt's probe"
    assert accused(FindingKind.CACHE, ledger, FORCING) == {"a"}, "teacher forcing reads no cache"
    assert accused(FindingKind.CACHE, Ledger(), PROBE) == {"a"}
    for kind in (FindingKind.WRONG_OUTPUT, FindingKind.LEAK):
        assert accused(kind, ledger, PROBE) == {"a"}, "its answer did not come from what the probe read"


def test_what_is_unknown_names_nobody() -> None:
    findings = [Finding(who, "", kind) for who, kind in (("a", FindingKind.UNVERIFIED), ("b", FindingKind.CACHE))]
    findings += [Finding("decode-0", ""), Finding("a-probe", "")]
    assert [one.subject for one in naming(findings, {"a", "b"})] == ["b"]


def test_a_named_request_that_is_unaffected_fails_the_selftest() -> None:
    clean = run_trial(Trial(COLD, None, 0.0, 40, 3))
    caught = run_trial(Trial(COLD, "burst", 1 / 20, 40, 1))
    assert make_report([caught, clean]).passed
    report = make_report([replace(caught, accused=2), clean])
    assert not report.passed
    assert (report.accused, len(report.falsely_named)) == (2, 1)
    false_without_bug = make_report([caught, replace(clean, accused=1)])
    assert false_without_bug.falsely_named == ("no bug, load cold, noise usual, seed 3: 1 of 40 requests",)
    assert not false_without_bug.passed
    lines = list(table_lines(report))
    assert "FALSELY NAMED  burst, load cold, noise usual, seed 1: 2 of 40 requests" in lines
    assert lines[-1].startswith("FAILED")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_probes_that_got_another_chunk_from_the_tier_accuse_nobody(seed: int) -> None:
    """The bug strikes the probes of the tiers too, and the harness names the prompts that these were of."""
    result = run_trial(Trial(load_for("offload_wrong_block"), "offload_wrong_block", 1 / 20, 120, seed))
    assert result.verdict is Verdict.INVALID
    assert result.accused == 0
