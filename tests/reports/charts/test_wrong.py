"""Wrong outputs by servers, position, block and time, and verified outputs beside the limits of noise."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from charted_run import DEPLOYMENT, drawn, report_of, rows_with
from forced_histories import Readings, gaussian, run
from run_fixtures import STARTED

from harness.checkers import judge
from harness.history import History
from harness.reports import make_report
from harness.reports.charts import Chart, charts_of
from harness.reports.requests import OutputStatus
from harness.verify.judging.evidence import look_at_outputs
from harness.verify.judging.forcing import compare_with_forcing, forcings


def rows_of(chart: Chart, layer: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chart.spec["layer"][layer]["data"]["values"]
    return found


@pytest.fixture(scope="module")
def charts() -> dict[str, Chart]:
    report = report_of(drawn(300))
    status = {n: OutputStatus.WRONG if n % 3 else OutputStatus.DOUBTFUL for n in range(0, 300, 7)}
    status |= {n: OutputStatus.RIGHT for n in range(300) if n % 7 == 1}
    rows = rows_with(report, status)
    wrong = [n for n, one in status.items() if one is OutputStatus.WRONG]
    rows = [replace(row, token=n % 5, block=200 + n) if n in wrong else row for n, row in enumerate(rows)]
    return {"rows": rows, **{one.name: one for one in charts_of(report, rows)}}  # type: ignore[dict-item]


def test_outputs_are_counted_by_pair_of_servers(charts: dict[str, Any]) -> None:
    counted: dict[tuple[str, str], Counter[OutputStatus]] = {}
    for row in charts["rows"]:
        if row.output not in (OutputStatus.NONE, OutputStatus.NOT_SAMPLED, OutputStatus.UNVERIFIED):
            counted.setdefault((row.prefill_server, row.decode_server), Counter())[row.output] += 1
    chart = charts["wrong-by-pair"]
    cells = {(one["p"], one["d"]): (one["n"], one["w"], one["q"]) for one in rows_of(chart)}
    assert cells == {
        pair: (each.total(), each[OutputStatus.WRONG], each[OutputStatus.DOUBTFUL]) for pair, each in counted.items()
    }
    assert len(cells) == 4
    table = {(p, d): (int(n), int(w), int(q)) for p, d, n, w, q in chart.table.rows}
    assert table == cells


def test_wrong_outputs_are_counted_by_token_and_by_ranges_of_blocks(charts: dict[str, Any]) -> None:
    wrong = [row for row in charts["rows"] if row.output is OutputStatus.WRONG]
    tokens = Counter(row.token for row in wrong)
    assert {one["a"] + 0.5: one["n"] for one in rows_of(charts["wrong-by-token"])} == tokens
    bars = rows_of(charts["wrong-by-block"])
    assert sum(one["n"] for one in bars) == len(wrong)
    for one in bars:
        assert one["n"] == sum(one["a"] < row.block < one["b"] for row in wrong)


def test_outputs_that_are_not_right_are_counted_by_when_they_were_sent(charts: dict[str, Any]) -> None:
    due = min(row.due for row in charts["rows"])
    for one in rows_of(charts["wrong-over-time"]):
        status = OutputStatus(one["k"])
        sent = [row.sent - due for row in charts["rows"] if row.output is status]
        assert one["n"] == sum(one["t"] <= at < one["u"] for at in sent)


def test_a_run_with_right_outputs_has_no_charts_of_wrong_ones() -> None:
    report = report_of(drawn(50))
    right = rows_with(report, dict.fromkeys(range(50), OutputStatus.RIGHT))
    assert not [one.name for one in charts_of(report, right) if one.name.startswith("wrong")]


def damaged(name: str, readings: Readings) -> None:
    """Two outputs have a token far behind the best one."""
    if name in {"load-3", "load-40"}:
        readings.forced[5] -= 9.0


def test_each_verified_output_stands_where_its_largest_errors_are() -> None:
    history = History((STARTED, *run(gaussian(0.02), damage=damaged).entries))
    judgement = judge(DEPLOYMENT, history)
    report = make_report(DEPLOYMENT, history, judgement)
    (chart,) = [one for one in charts_of(report) if one.name == "verified-outputs"]
    points = rows_of(chart, -1)
    load = {one["r"]: one for one in points if "r" in one}
    every = forcings(history)
    for operation in history.operations():
        name = operation.request.request_id
        if name in load:
            (forced,) = compare_with_forcing(operation, every[name])
            assert load[name]["x"] == pytest.approx(max(forced.margin_error.tolist()), rel=5e-3)
            assert load[name]["y"] == pytest.approx(max(forced.drift.tolist()), rel=5e-3)
    assert len(load) == 64
    assert max(len(json.dumps(one, separators=(",", ":"))) for one in points) < 90
    assert {name for name, one in load.items() if one["k"] == "wrong output"} == {"load-3", "load-40"}
    assert sum(one["k"] == "control output" for one in points) == 32
    floor = look_at_outputs(history).floor
    lines = [layer["data"]["values"][0]["v"] for layer in chart.spec["layer"][:-1]]
    assert lines == [floor.near.regret, floor.near.drift, floor.far.regret, floor.far.drift]
    assert "All 64 teacher-forced outputs" in chart.description
