"""Checks that make a plain run unknown make a catalogue run unknown, too, although they belong to no workload."""

from collections.abc import Iterable
from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge, judge_rest, judge_scenario
from harness.history import Choice, ClientHealth, Ended, Entry, History, Outcome, RunEnded, RunStarted, Sent, Usage
from harness.pytest_plugin.held import judged as judged_workload
from harness.run import Carried, Recorder
from harness.scenario import Request, Sampling
from harness.verdict import Bounds, Check, Comparison, Finding, Judgement, Verdict

STRAINED = ClientHealth(9.0, 0.01, 0.01, 0.001, 0.99)
FINE = replace(STRAINED, cpu_share=0.2)


def streams(number: int, *, in_pieces: bool, tokens: int = 8) -> Iterable[Entry]:
    """Streamed answers of one scenario, side by side."""
    for n in range(number):
        asked = Request(f"s{n}", (1, 2, 3), Sampling(max_tokens=tokens))
        times = tuple(2.0 + (0.1 * k if in_pieces else 0.0) for k in range(tokens))
        yield Sent(1.0, asked, "chatty", "load", 1.0)
        yield Ended(
            3.0,
            asked.request_id,
            Outcome.OK,
            status=200,
            choices=(Choice(tuple(range(tokens)), finish_reason="length"),),
            usage=Usage(3, tokens),
            token_times=times,
            tokens_per_chunk=(1,) * tokens,
        )


def history(*entries: Entry, health: ClientHealth = FINE) -> History:
    start = RunStarted(0.0, (), 0, "", None, ("chatty",))
    return History((start, *entries, health, RunEnded(9.0)))


def left_of(made: History) -> dict[str, Verdict]:
    """The checks in the row of the whole run, after a run of one scenario."""
    part = judge_scenario(run.DEPLOYMENT, made, judge(run.DEPLOYMENT, made), "chatty")
    rest = judge_rest(run.DEPLOYMENT, made, None, {"chatty": part})
    return {} if rest is None else {check.name: check.verdict for check in rest.checks}


def test_a_client_that_did_not_keep_up_leaves_the_run_unknown() -> None:
    assert left_of(history(*streams(2, in_pieces=True), health=STRAINED)) == {"client_health": Verdict.UNKNOWN}
    assert left_of(history(*streams(2, in_pieces=True))) == {}


def test_many_streams_of_which_none_flowed_leave_the_run_unknown() -> None:
    assert left_of(history(*streams(40, in_pieces=False))) == {"streaming": Verdict.UNKNOWN}
    assert left_of(history(*streams(40, in_pieces=True))) == {}


@pytest.mark.parametrize(("number", "tokens"), [(0, 6), (3, 6), (40, 2)])
def test_too_few_streams_leave_nothing(number: int, tokens: int) -> None:
    assert left_of(history(*streams(number, in_pieces=False, tokens=tokens))) == {}


def test_a_workload_of_a_test_suite_is_judged_by_its_own_entries() -> None:
    """A strained client makes only this workload unknown, not later workloads."""
    record = Recorder(entries=[RunStarted(0.0, (), 0, "pytest", None, ())])
    found = []
    for health in (STRAINED, FINE):
        before = len(record.history.entries)
        for entry in (*streams(2, in_pieces=True), health, RunEnded(9.0)):
            record(entry)
        checks = judged_workload(Carried(run.DEPLOYMENT, record.history), "chatty", None, before).judgement.checks
        found.append([check.verdict for check in checks if check.name == "client_health"])
    assert found == [[Verdict.UNKNOWN], []]


def judged(*checks: Check) -> Judgement:
    return Judgement(checks)


def compared(scenario: str, observed: float | None, counter: str = "nixl_bytes") -> Comparison:
    return Comparison(scenario, "load", "decode-0", counter, Bounds.exactly(1), observed, "it restarted")


def counters(name: str, *comparisons: Comparison) -> Check:
    verdicts = {one.verdict for one in comparisons}
    verdict = next(one for one in (Verdict.INVALID, Verdict.UNKNOWN, Verdict.VALID) if one in verdicts)
    return Check(name, verdict, "a summary", comparisons)


def test_counters_outside_of_every_workload_are_left() -> None:
    mine, other = compared("mine", 0.0), compared("verification", None)
    parts = {"mine": judged(counters("nixl_bytes", mine))}
    rest = judge_rest(run.DEPLOYMENT, run.history(), judged(counters("nixl_bytes", mine, other)), parts)
    assert rest is not None
    assert [(one.name, one.verdict) for one in rest.checks] == [("nixl_bytes", Verdict.UNKNOWN)]
    assert "it restarted" in rest.checks[0].summary
    assert judge_rest(run.DEPLOYMENT, run.history(), judged(counters("nixl_bytes", mine)), parts) is None


def test_a_finding_that_belongs_to_no_workload_is_left_beside_findings_that_do() -> None:
    """A known fault of a workload does not excuse other findings of the same check."""
    mine, other = Finding("prefill-0", "leaked after ask"), Finding("prefill-0", "leaked after reset")
    parts = {"mine": judged(Check("settled", Verdict.INVALID, "", findings=(mine,)))}
    whole = judged(Check("settled", Verdict.INVALID, "", findings=(mine, other)))
    rest = judge_rest(run.DEPLOYMENT, run.history(), whole, parts)
    assert rest is not None
    assert rest.verdict is not Verdict.VALID
    assert rest.checks[0].findings == (other,)
    assert judge_rest(run.DEPLOYMENT, run.history(), parts["mine"], parts) is None


def test_a_checker_that_crashed_is_left() -> None:
    whole = judged(Check("outputs", Verdict.UNKNOWN, "the checker itself failed: KeyError: 'a'"))
    rest = judge_rest(run.DEPLOYMENT, run.history(), whole, {"mine": judged(Check("outputs", Verdict.VALID, ""))})
    assert rest is not None
    assert rest.verdict is Verdict.UNKNOWN


def test_short_answers_that_arrive_at_once_are_no_evidence_of_a_buffer() -> None:
    """Four tokens are generated so fast that a busy machine reads them together."""
    assert left_of(history(*streams(100, in_pieces=False, tokens=4))) == {}
