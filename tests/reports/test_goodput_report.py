"""Goodput and the kinds of latency in a run's report."""

from dataclasses import replace

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, VALID

from harness.history import History, Sent
from harness.loads import Ramp, Stages, Steady
from harness.reports import LoadSettings, make_report
from harness.verdict import Check, Finding, FindingKind, Judgement, Outputs, Verdict

LOAD = LoadSettings(2, goodput={"ttft": 250.0, "tpot": 200.0})


def judged(*findings: Finding) -> Judgement:
    return Judgement((Check("outputs", Verdict.INVALID, "", findings=findings),), Outputs(1, 0, 0, 1, 0))


def test_goodput_is_in_the_result_and_on_the_screen() -> None:
    """One of two requests ended OK, 0.2 s after it was due; the load took a second."""
    report = make_report(DEPLOYMENT, HISTORY, VALID, load=LOAD)
    assert report.result["request_goodput"] == pytest.approx(1.0)
    assert report.result["goodput_objectives_ms"] == {"ttft": 250.0, "tpot": 200.0}
    assert (report.result["good_requests"], report.result["in_time_but_wrong"]) == (1, 0)
    assert "goodput: 1.00 requests/s: 1 of 2 requests ended within TTFT 250 ms, TPOT 200 ms" in str(report)


@pytest.mark.parametrize("kind", [FindingKind.WRONG_OUTPUT, FindingKind.LEAK])
def test_a_request_whose_output_was_found_wrong_is_not_good(kind: FindingKind) -> None:
    wrong = judged(Finding("load-0", "token 3 is not that of the prompt", kind=kind, request="load-0"))
    report = make_report(DEPLOYMENT, HISTORY, wrong, load=LOAD)
    assert (report.result["request_goodput"], report.result["in_time_but_wrong"]) == (0.0, 1)
    assert "1 request in time had wrong outputs and do not count" in str(report)


def test_a_request_about_which_nothing_is_wrong_counts() -> None:
    doubt = judged(Finding("load-0", "not verified", kind=FindingKind.UNVERIFIED, request="load-0"))
    assert make_report(DEPLOYMENT, HISTORY, doubt, load=LOAD).result["request_goodput"] == pytest.approx(1.0)


def test_without_objectives_there_is_no_goodput() -> None:
    report = make_report(DEPLOYMENT, HISTORY, VALID)
    assert report.result["request_goodput"] is None
    assert "goodput" not in str(report)


def test_latencies_from_the_sending_are_shown_if_requests_were_sent_late() -> None:
    late = [
        replace(one, intended_at=one.intended_at - 0.1) if isinstance(one, Sent) else one for one in HISTORY.entries
    ]
    report = make_report(DEPLOYMENT, History(tuple(late)), VALID)
    assert "\nTTFT ms: mean 300" in str(report)
    assert "\nTTFT from send ms: mean 200" in str(report)
    assert "from send" not in str(make_report(DEPLOYMENT, HISTORY, VALID))


@pytest.mark.parametrize(
    ("arrival", "keys"),
    [
        (Steady(8.0, 0.5), {"request_rate": 8.0, "burstiness": 0.5}),
        (Steady(8.0, float("inf")), {"request_rate": 8.0, "burstiness": "inf"}),
        (Ramp("linear", 1.0, 4.0), {"request_rate": "inf", "ramp_up_strategy": "linear", "ramp_up_end_rps": 4.0}),
        (Stages(((1.0, 10.0), (4.0, 5.0))), {"request_rate": 2.0, "burstiness": 1.0}),
    ],
)
def test_how_requests_arrived_is_in_the_result(arrival: Steady | Ramp | Stages, keys: dict[str, object]) -> None:
    result = make_report(DEPLOYMENT, HISTORY, VALID, load=LoadSettings(2, arrival=arrival.keys)).result
    assert {name: result[name] for name in keys} == keys
