"""Several workloads of one run, each under a fault: whose evidence counts for which row."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge, judge_rest, judge_scenario
from harness.checkers.completion import completion
from harness.checkers.windows import windows
from harness.history import (
    Ended,
    Ending,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    Outcome,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sent,
    Tolerated,
)
from harness.scenario import Request, Route
from harness.verdict import Check, Verdict

CUT = {"outcome": Outcome.INFO, "status": 200, "ending": Ending.CUT, "cause": "the connection broke"}


def fault(scenario: str, at: float, *, evidence: bool = True, healed: bool = True) -> list[Entry]:
    """A fault from ``at`` to a second later."""
    name = f"{scenario}/pause-1"
    return [
        FaultPlanned(at, name, "pause", "decode-0", "stop decode-0", (Tolerated.ERRORS,), scenario, "load"),
        FaultBegan(at, name),
        *([FaultProved(at, name, "it is stopped")] if evidence else []),
        FaultHealed(at + 1, name, healed, "it goes on" if evidence else "it was never stopped"),
    ]


def served(scenario: str, at: float, request: Request | None = None, **end: object) -> list[Entry]:
    """A request that takes half a second."""
    request = request or Request(f"{scenario}-{at:g}", (1,))
    ended = {"outcome": Outcome.OK, "status": 200, **end}
    return [Sent(at, request, scenario, "load", at), Ended(at + 0.5, request.request_id, **ended)]  # type: ignore[arg-type]


def history(*entries: list[Entry]) -> History:
    """Workload ``a`` from 0 to 10, ``b`` from 10 to 20."""
    begun = [PhaseStarted(0, "a", "load"), PhaseStarted(10, "b", "load")]
    listed = [entry for group in entries for entry in group]
    return History((RunStarted(0.0, (), 0, "", None, ("a", "b")), *begun, *listed, RunEnded(20.0)))


def row(judged: History, scenario: str, name: str) -> Check | None:
    checks = judge_scenario(run.DEPLOYMENT, judged, judge(run.DEPLOYMENT, judged), scenario).checks
    return next((one for one in checks if one.name == name), None)


def both(**of_b: bool) -> History:
    return history(
        *(fault("a", 1), served("a", 0.5), served("a", 3)),
        *(fault("b", 11, **of_b), served("b", 10.5), served("b", 13)),
    )


def test_each_row_has_the_faults_of_its_own_workload() -> None:
    for name in ("a", "b"):
        found = row(both(), name, "faults")
        assert found is not None
        assert found.verdict is Verdict.VALID
        assert found.summary.startswith("1 fault was observed")


def test_a_fault_that_did_nothing_makes_its_own_row_unknown_and_no_other() -> None:
    judged = both(evidence=False)
    well, ill = row(judged, "a", "faults"), row(judged, "b", "faults")
    assert well is not None
    assert ill is not None
    assert well.verdict is Verdict.VALID
    assert ill.verdict is Verdict.UNKNOWN
    assert "never stopped" in ill.summary
    assert [finding.subject for finding in ill.findings] == ["b/pause-1"]
    assert ill.advice is not None
    whole = judge(run.DEPLOYMENT, judged)
    parts = {name: judge_scenario(run.DEPLOYMENT, judged, whole, name) for name in ("a", "b")}
    rest = judge_rest(run.DEPLOYMENT, judged, whole, parts)
    assert rest is None or "faults" not in [check.name for check in rest.checks], "it is in the row already"


def test_a_fault_that_a_workload_was_too_short_for_says_what_to_do() -> None:
    found = row(history(fault("a", 1)[:1], served("a", 0.5), served("b", 11)), "a", "faults")
    assert found is not None
    assert found.verdict is Verdict.UNKNOWN
    assert "after=0" in found.summary
    assert row(history(fault("a", 1)[:1], served("a", 0.5), served("b", 11)), "b", "faults") is None


def test_a_fault_excuses_nothing_in_the_next_workload_once_the_deployment_had_recovered() -> None:
    judged = history(fault("a", 1), served("a", 3), served("b", 10.5, **CUT), served("b", 12))
    found = row(judged, "b", "completion")
    assert found is not None
    assert found.verdict is Verdict.INVALID


def test_a_fault_that_could_not_be_undone_makes_the_next_workload_unknown_not_invalid() -> None:
    judged = history(fault("a", 1, healed=False), served("a", 0.5), served("b", 90, **CUT), served("b", 91, **CUT))
    assert windows(judged)[0].end == float("inf")
    for name in ("faults", "completion"):
        found = row(judged, "b", name)
        assert found is not None
        assert found.verdict is Verdict.UNKNOWN, (name, found.summary)


def test_only_a_request_through_the_proxy_shows_that_all_serve_again() -> None:
    alone = Request("alone", (1,), route=Route.PREFILL)
    [window] = windows(history(fault("a", 1), served("a", 2, alone), served("a", 5)))
    assert window.recovered_at == 5.5


def test_a_request_that_must_be_refused_may_not_be_served_under_a_fault_either() -> None:
    refused = Request("too-long", (1,), expect_status=400)
    judged = history(fault("a", 1), served("a", 1.5, refused), served("a", 3))
    assert completion(run.DEPLOYMENT, judged).verdict is Verdict.INVALID
    other = history(fault("a", 1), served("a", 1.5, refused, **CUT | {"status": 502}), served("a", 3))
    assert completion(run.DEPLOYMENT, other).verdict is Verdict.VALID


@pytest.mark.parametrize(("first_at", "verdict"), [(1.5, Verdict.VALID), (4.0, Verdict.INVALID)])
def test_a_turn_that_could_not_be_sent_is_judged_as_the_one_before(first_at: float, verdict: Verdict) -> None:
    first = Request("turn-1", (1,))
    second = replace(first, request_id="turn-2", continues="turn-1")
    unsent = {"outcome": Outcome.FAIL, "status": None, "ending": Ending.NOT_SENT, "cause": "it continues turn-1"}
    judged = history(
        fault("a", 1), served("a", 3), served("a", first_at, first, **CUT), served("a", 8, second, **unsent)
    )
    assert completion(run.DEPLOYMENT, judged).verdict is verdict


def test_a_pair_that_was_sent_without_its_faults_is_unknown() -> None:
    judged = history(served("a", 1), served("b", 11))
    whole = judge(run.DEPLOYMENT, judged)
    checks = {one.name: one for one in judge_scenario(run.DEPLOYMENT, judged, whole, "a", faulted=True).checks}
    assert checks["faults"].verdict is Verdict.UNKNOWN
    assert "faults" not in [one.name for one in judge_scenario(run.DEPLOYMENT, judged, whole, "a").checks]


def test_a_restart_that_a_fault_was_to_cause_is_no_reason_to_look_for_a_crash() -> None:
    readings = [*run.readings()[:3], run.reading("decode-0", "after", run.DECODE | {"started": 1.8e9})]
    planned, *rest = fault("cold", 0.9, evidence=False)
    assert isinstance(planned, FaultPlanned)
    restart = [replace(planned, tolerates=(Tolerated.RESTART,)), *rest]
    for entries, named in (((), True), (restart, False)):
        checks = {one.name: one for one in judge(run.DEPLOYMENT, run.history(readings, None, *entries)).checks}
        advice = checks["token_sources"].advice
        assert checks["token_sources"].verdict is Verdict.UNKNOWN
        assert ("was restarted" in str(advice)) is named
