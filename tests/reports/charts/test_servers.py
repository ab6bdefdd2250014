"""Servers' metrics over time."""

from typing import Any

import pytest
from charted_run import One, comparison, judged, report_of, samples

from harness.history import Sampled
from harness.reports import Report
from harness.reports.charts import Chart, charts_of
from harness.reports.charts.measured_run import measured_run
from harness.reports.charts.server_readings import server_readings
from harness.verdict import Bounds

LOAD = [One(sent=0.0, tokens=(0.5, 10.0))]


def made(report: Report) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(report)}


def points(chart: Chart) -> list[dict[str, Any]]:
    (values,) = [layer["data"]["values"] for layer in chart.spec["layer"]]
    found: list[dict[str, Any]] = values
    return found


def counting(server: str, values: dict[float, float]) -> list[Sampled]:
    return samples(server, {at: {"external_kv_transfer": value} for at, value in values.items()})


def test_readings_are_those_during_the_load_and_the_nearest_beside_it() -> None:
    report = report_of(LOAD, counting("decode-0", {-9: 0, -1: 1, 2: 2, 5: 3, 11: 4, 30: 5}))
    (found,) = server_readings(measured_run(report))
    assert found.times == pytest.approx((-1, 2, 5, 11))
    assert (found.server, found.role) == ("decode-0", "decode")


def test_a_server_that_was_started_again_goes_on_growing() -> None:
    report = report_of(LOAD, counting("decode-0", {-1: 100, 2: 130, 4: 10, 6: 25, 11: 25}))
    (found,) = server_readings(measured_run(report))
    assert [value for _, value in found.grown("external_kv_transfer")] == [0, 30, 40, 55, 55]
    assert list(found.grown("local_compute")) == []


def test_the_growth_of_a_role_is_summed_whenever_all_of_its_servers_were_read() -> None:
    first = counting("decode-0", {-1: 5, 2: 15, 4: 25, 6: 45, 10.5: 45})
    second = counting("decode-1", {-0.9: 0, 2.1: 100, 6.1: 300, 10.6: 300})
    report = report_of(LOAD, sorted((*first, *second), key=lambda one: one.at))
    chart = made(report)["token-sources-over-time"]
    expected = [(0, 0), (2.1, 10 + 100), (6.1, 40 + 300), (10.6, 40 + 300)]
    assert [(one["t"], one["y"]) for one in points(chart)] == expected
    assert {(one["k"], one["s"]) for one in points(chart)} == {("external_kv_transfer", "decode")}
    assert "decode external_kv_transfer 340" in chart.description


def test_gauges_are_drawn_only_if_they_were_read_during_the_load() -> None:
    idle = samples("decode-0", {at: {"running": 0.0, "kv_usage": 0.0} for at in (-1.0, 11.0)})
    assert not {"server-requests", "server-kv"} & set(made(report_of(LOAD, idle)))
    numbers = {-1.0: (0, 0.0), 3.0: (7, 0.5), 11.0: (0, 0.0)}
    busy = samples("decode-0", {at: {"running": n, "kv_usage": share} for at, (n, share) in numbers.items()})
    charts = made(report_of(LOAD, busy))
    assert "at most 7 and 0 at a server in 3 readings" in charts["server-requests"].description
    assert "At most 50.0%, on decode-0" in charts["server-kv"].description


def test_a_counter_s_difference_is_a_share_of_the_larger_value() -> None:
    counters = judged(
        comparison("decode-0", "external_kv_transfer", 1000, 250),
        comparison("decode-1", "external_kv_transfer", Bounds(10, 20), 15),
        comparison("prefill-0", "local_compute", 0, 3),
        comparison("prefill-0", "nixl_bytes", 5, 5),
        comparison("prefill-1", "local_compute", Bounds(50, 60), 80),
    )
    charts = made(report_of(LOAD, judgement=counters))
    rows = charts["counter-differences"].spec["layer"][1]["data"]["values"]
    assert {row["c"]: row["d"] for row in rows} == {
        "decode-0 external_kv_transfer": -0.75,
        "prefill-0 local_compute": 1,
        "prefill-1 local_compute": 0.25,
        # The same counter of another server stands beside it; nixl_bytes are right everywhere, and left out.
        "decode-1 external_kv_transfer": 0,
    }
    assert "3 counters of 5" in charts["counter-differences"].description


def test_counters_as_predicted_have_no_chart_of_differences() -> None:
    charts = made(report_of(LOAD, judgement=judged(comparison("decode-0", "external_kv_transfer", 10, 10))))
    assert "counter-differences" not in charts
    bars = points(charts["token-sources"])
    assert [(one["w"], one["n"]) for one in bars] == [("observed", 10), ("expected", 10)]
