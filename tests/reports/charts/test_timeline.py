"""The bars of requests."""

from typing import Any

import pytest
from charted_run import BEGIN, One, drawn, fault, report_of, rows_with

from harness.history import Ended, Outcome
from harness.reports.charts import Chart, charts_of
from harness.reports.charts.bars import (
    FAILED,
    NOTHING,
    PREFILL,
    PROXY,
    REST,
    SEGMENTS,
    TOKENS,
    UNSPLIT,
    WAITING,
    WHOLE,
    WRONG,
    segments,
)
from harness.reports.charts.timeline import MOST
from harness.reports.requests import OutputStatus, request_rows


def parts(one: One) -> list[tuple[str, float, float]]:
    report = report_of([one])
    (row,) = request_rows(report.deployment, report.history, report.judgement)
    return [(name, round(a - BEGIN, 6), round(b - BEGIN, 6)) for name, a, b in segments(row)]


def test_what_the_proxy_reported_is_told_apart_and_the_rest_is_one_part() -> None:
    assert parts(One(0.1, 0.2, (0.5, 0.9), proxy=0.05, prefill=0.1)) == [
        (WAITING, 0.1, 0.2),
        (PROXY, 0.2, 0.25),
        (PREFILL, 0.25, 0.35),
        (REST, 0.35, 0.5),
        (TOKENS, 0.5, 0.9),
    ]


@pytest.mark.parametrize("reported", [{"proxy": None}, {"prefill": None}, {"proxy": None, "prefill": None}])
def test_without_the_proxy_s_report_the_time_to_first_token_is_not_split(reported: dict[str, Any]) -> None:
    assert parts(One(0, 0, (0.5, 0.9), **reported)) == [(UNSPLIT, 0, 0.5), (TOKENS, 0.5, 0.9)]


def test_a_report_that_is_longer_than_the_time_to_first_token_moves_nothing_beyond_it() -> None:
    assert parts(One(0, 0, (0.5, 0.9), proxy=0.1, prefill=0.6)) == [
        (PROXY, 0, 0.1),
        (PREFILL, 0.1, 0.5),
        (TOKENS, 0.5, 0.9),
    ]


def test_a_failed_request_waits_for_an_answer_and_one_in_one_piece_for_the_whole() -> None:
    assert parts(One(0, 0, (), 2.0, Outcome.INFO, proxy=None)) == [(NOTHING, 0, 2)]
    assert parts(One(0, 0, (), 2.0, proxy=None)) == [(WHOLE, 0, 2)]


def chart(charts: tuple[Chart, ...], name: str = "timeline") -> Chart:
    return next(one for one in charts if one.name == name)


def bars(found: Chart) -> list[dict[str, Any]]:
    data = (layer["data"] for layer in found.spec["layer"])
    return next(one["values"] for one in data if one.get("name") == "requests" and "values" in one)


def test_every_wrong_output_and_failure_is_among_the_drawn_ones() -> None:
    report = report_of(drawn(3000))
    wrong = set(range(0, 3000, 23))
    rows = rows_with(report, dict.fromkeys(wrong, OutputStatus.WRONG), why="12 nats behind")
    found = chart(charts_of(report, rows))
    marks = {bar["r"]: bar["m"] for bar in bars(found) if "m" in bar}
    failed = {row.request_id for row in rows if row.outcome is not Outcome.OK}
    assert {f"load-{n}" for n in wrong} == {who for who, mark in marks.items() if mark == WRONG}
    assert failed - {f"load-{n}" for n in wrong} == {who for who, mark in marks.items() if mark == FAILED}
    assert len(bars(found)) == MOST
    assert f"{MOST} of 3,000 requests" in found.title
    assert f"{MOST} of 3,000 requests" in found.description


def test_bars_have_the_times_of_the_history() -> None:
    report = report_of(drawn(200))
    ends = {one.request_id: one for one in report.history.of(Ended)}
    sent = {op.request.request_id: op.sent for op in report.history.operations()}
    begin = min(one.intended_at for one in sent.values())
    for bar in bars(chart(charts_of(report))):
        assert bar["a"][0] == pytest.approx(sent[bar["r"]].intended_at - begin, abs=1e-4)
        assert bar["b"][-1] == bar["e"] == pytest.approx(ends[bar["r"]].at - begin, abs=1e-4)
        assert bar["b"][:-1] == bar["a"][1:]
        if "f" in bar:
            tokens = bar["k"].index(list(SEGMENTS).index(TOKENS))
            assert bar["f"] == pytest.approx(1000 * (bar["a"][tokens] - bar["a"][0]), abs=0.3)


def test_a_fault_is_shaded_from_its_beginning_to_the_recovery() -> None:
    report = report_of(
        [One(sent=n / 10, due=n / 10, tokens=(n / 10 + 0.1, n / 10 + 0.2)) for n in range(50)],
        fault("pause-1", 1.0, 2.0),
    )
    found = chart(charts_of(report))
    band = found.spec["layer"][0]["data"]["values"]
    # The first request that was sent after the healing, at 2.0, ends at 2.2.
    assert band == [{"name": "pause-1", "begin": 1, "end": 2.2}]
    assert "pause-1 from 1.0 to 2.2 s" in found.description
