"""Charts of whole runs: each compiles, is small, and shows foreign text as data."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
import vl_convert
from charted_run import One, comparison, drawn, fault, judged, report_of, rows_with, samples
from run_fixtures import DEPLOYMENT, STARTED

from harness.history import History, Outcome, Sampled
from harness.reports import Report, make_report
from harness.reports.charts import Chart, charts_of
from harness.reports.charts.style import COLOURS, YELLOW
from harness.reports.requests import OutputStatus
from harness.verdict import Judgement

EVERY = {
    *("in-flight", "timeline", "wrong-over-time", "wrong-by-pair", "wrong-by-token", "wrong-by-block"),
    *("counter-differences", "token-sources", "latency-distribution", "latency-tail", "latency-by-pair"),
    *("latency-over-time", "requests-over-time", "tokens-over-time", "server-requests", "server-kv"),
    "token-sources-over-time",
}
"""All but the verified outputs, which need teacher forcings (test_verified.py)."""
MOST_BYTES = 450_000
"""Of the JSON of a run of 10,000 requests: the page may have 1.5 MB, of which Vega takes the largest part."""
VERIFIED_BYTES = 1000 * 90
"""Of it, what the verified outputs may take: their most points, which are no longer than this (test_wrong.py)."""


def large(requests: list[One]) -> Report:
    end = max(one.sent for one in requests)
    numbers = {"running": 3.0, "waiting": 1.0, "kv_usage": 0.25, "local_compute": 0.0}
    readings: list[Sampled] = []
    for name in ("prefill-0", "prefill-1", "decode-0", "decode-1"):
        at = [end * n / 200 - 0.1 for n in range(201)]
        readings += samples(name, {t: numbers | {"external_kv_transfer": 7.0 * n} for n, t in enumerate(at)})
    readings.sort(key=lambda one: one.at)
    counters = judged(comparison("decode-0", "external_kv_transfer", 900, 850), comparison("decode-0", "x", 1, 1))
    return report_of(requests, (*fault("pause-1", end / 3, end / 2), *readings), counters)


def charts_with_wrong(report: Report, count: int) -> tuple[Chart, ...]:
    wrong: dict[int, OutputStatus] = dict.fromkeys(range(0, count, 9), OutputStatus.WRONG)
    return charts_of(report, rows_with(report, wrong, why="x" * 200, token=3, block=2))


@pytest.fixture(scope="module")
def charts() -> tuple[Chart, ...]:
    return charts_with_wrong(large(drawn(400)), 400)


def test_every_chart_compiles_to_vega(charts: tuple[Chart, ...]) -> None:
    assert {chart.name for chart in charts} == EVERY
    for chart in charts:
        assert chart.spec["width"] == "container"
        assert "config" not in chart.spec
        assert vl_convert.vegalite_to_vega(dict(chart.spec))["marks"]


def layers_of(spec: Mapping[str, Any], data: Any = None, encoding: Any = None) -> Iterator[tuple[Any, Any, Any]]:
    """Each layer without further ones: data, encoding, and what is computed from the data."""
    data, encoding = spec.get("data", data), {**(encoding or {}), **spec.get("encoding", {})}
    if "layer" in spec:
        for layer in spec["layer"]:
            yield from layers_of(layer, data, encoding)
    else:
        yield data, encoding, {one["as"] for one in spec.get("transform", []) if "as" in one}


def fields(encoding: Any) -> Iterator[str]:
    if isinstance(encoding, dict):
        yield from [encoding["field"]] if "field" in encoding else []
        for value in encoding.values():
            yield from fields(value)
    elif isinstance(encoding, list):
        for value in encoding:
            yield from fields(value)


def test_all_that_is_drawn_is_in_the_data(charts: tuple[Chart, ...]) -> None:
    """Vega draws nothing, and complains of nothing, if the name of a data set or of a field is wrong."""
    for chart in charts:
        named: dict[str, Any] = {}
        for data, encoding, computed in layers_of(chart.spec):
            if "name" in data:
                named.setdefault(data["name"], data.get("values"))
            rows = data["values"] if "values" in data else named[data["name"]]
            assert set(fields(encoding)) <= {key for row in rows for key in row} | computed, chart.name


def test_every_chart_is_told_in_words_and_figures(charts: tuple[Chart, ...]) -> None:
    for chart in charts:
        assert chart.title
        assert any(letter.isdigit() for letter in chart.description)
        assert chart.description.endswith(".")
        assert "nan" not in chart.description
        if chart.table is not None:
            assert chart.table.rows
            assert {len(row) for row in chart.table.rows} == {len(chart.table.header)}


def test_a_run_without_requests_has_no_charts() -> None:
    assert charts_of(make_report(DEPLOYMENT, History((STARTED,)), Judgement(()))) == ()


@pytest.mark.parametrize(
    "requests",
    [
        [One(0, 0, (), 1.0, Outcome.INFO)],
        [One(0, 0, (), 0.0, Outcome.FAIL)],
        [One(0, 0, (), 1.0)],
        [One(0, 0, (0.0,))],
        [One(0, 0, (0.0, 0.0, 0.0))],
        [One(5.0, 5.0, (5.1,))],
    ],
)
def test_odd_runs_have_charts(requests: list[One]) -> None:
    for chart in charts_of(report_of(requests)):
        vl_convert.vegalite_to_vega(dict(chart.spec))
        json.dumps(chart.spec, allow_nan=False)


@pytest.mark.slow  # makes and judges a run of 10,000 requests
def test_ten_thousand_requests_make_small_charts() -> None:
    charts = charts_with_wrong(large(drawn(10_000)), 10_000)
    assert {chart.name for chart in charts} == EVERY
    size = sum(len(json.dumps(chart.spec, allow_nan=False, separators=(",", ":"))) for chart in charts)
    assert size < MOST_BYTES - VERIFIED_BYTES


HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x1b[2J\n' + datum.x + \""
EVIL = "onerror"


def places(spec: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where in a specification hostile text stands."""
    if isinstance(spec, str):
        if EVIL in spec:
            assert spec.isprintable()
            yield path
    elif isinstance(spec, dict):
        for key, value in spec.items():
            assert EVIL not in key
            yield from places(value, (*path, key))
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from places(value, path)


def test_foreign_text_is_data_and_no_expression() -> None:
    requests = [One(n / 10, n / 10, (n / 10 + 0.1, n / 10 + 0.2), name=f"{HOSTILE}{n}", fields={}) for n in range(8)]
    others = (
        *fault(HOSTILE, 0.2, 0.3),
        *(Sampled(100.5 + n / 10, "decode-0", cause=HOSTILE) for n in range(3)),
    )
    report = report_of(requests, others, judged(comparison(HOSTILE, HOSTILE, 5, 4)))
    charts = charts_of(
        report,
        rows_with(
            report,
            dict.fromkeys(range(4), OutputStatus.WRONG),
            why=HOSTILE,
            prefill_server=HOSTILE,
            decode_server=HOSTILE,
        ),
    )
    found = {path for chart in charts for path in places(chart.spec)}
    assert found
    for path in found:
        assert "values" in path or path[-2:] == ("scale", "domain"), path
    for chart in charts:
        assert (chart.title + chart.description).isprintable()
        vl_convert.vegalite_to_vega(dict(chart.spec))


def luminance(colour: str) -> float:
    """Relative luminance, by the Web Content Accessibility Guidelines 2.2."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("colour", "page"), [*product((*COLOURS, YELLOW), ("#ffffff", "#16191d"))])
def test_colours_stand_out_on_light_and_dark_pages(colour: str, page: str) -> None:
    light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3
