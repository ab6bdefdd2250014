"""Latencies of all completed requests: their distribution, and its tail. Pure."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from harness.reports.charts.chart import Chart, Table
from harness.reports.charts.grid import Floats
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import (
    BLUE,
    ORANGE,
    PURPLE,
    TEAL,
    Spec,
    coloured,
    framed,
    legend,
    logarithmic,
    rounded,
    values,
)
from harness.reports.text import figure

_COLOURS = {"TTFT": BLUE, "E2E": ORANGE, "TPOT": TEAL, "ITL": PURPLE}
_DASHES = {"TTFT": [1, 0], "E2E": [8, 3], "TPOT": [2, 2], "ITL": [8, 2, 2, 2]}
_CURVE = 120
"""Points of a curve."""
_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_TAIL = 9
"""Points of a tail's curve between two powers of ten."""


def latencies_ms(run: MeasuredRun) -> dict[str, Floats]:
    """Latencies in milliseconds by name, without those that were not measured. E2E and TTFT count from the due time."""
    found = run.arrivals
    ttft, e2e = (found.first - found.due)[found.streamed], found.last - found.due
    every = {"TTFT": ttft, "E2E": e2e, "TPOT": found.tpot, "ITL": found.itl}
    return {name: seconds * 1000 for name, seconds in every.items() if len(seconds)}


def latency_distribution(run: MeasuredRun) -> Iterator[Chart]:
    """The share of latencies up to each value."""
    measured = latencies_ms(run)
    if not measured:
        return
    rows = [{"m": name, **point} for name, ms in measured.items() for point in _shares(ms)]
    yield Chart(
        "latency-distribution",
        "Latencies: distribution",
        f"The share of latencies that are at most so long, of {len(run.arrivals.due):,} completed requests; TTFT and "
        f"E2E latency count from when a request was due. {_told(measured)}",
        framed(260, [_rules(), _rule_names(), _curves(rows, measured)]),
        _table(measured),
    )


def _shares(ms: Floats) -> list[dict[str, float]]:
    """Points of the empirical distribution: at quantiles that are as many latencies apart, the least and the most."""
    shares = np.unique(np.concatenate([np.linspace(0, 1, _CURVE), _QUANTILES]))
    found = np.quantile(ms, shares, method="inverted_cdf")
    return [{"x": rounded(_positive(x)), "y": rounded(y)} for x, y in zip(found.tolist(), shares.tolist(), strict=True)]


def _milliseconds(measured: dict[str, Floats], below: float) -> tuple[Spec, Spec]:
    """The axis, from the least latency on, but from no less than a median divided by ``below``.

    Tokens that arrive in one piece have latencies near 0, which would take most of a logarithmic axis.
    """
    least = min(max(float(ms.min()), float(np.median(ms)) / below) for ms in measured.values())
    return logarithmic(_positive(least), max(_positive(float(ms.max())) for ms in measured.values()) * 1.05)


def _positive(ms: float) -> float:
    """A logarithmic axis has no 0: a microsecond, less than any clock here tells apart."""
    return max(ms, 1e-3)


def _curves(rows: list[dict[str, object]], measured: dict[str, Floats]) -> Spec:
    scale, axis = _milliseconds(measured, below=20)
    return {
        "data": values(rows),
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": "milliseconds", "scale": scale, "axis": axis},
            "y": {
                "field": "y",
                "type": "quantitative",
                "title": "share of latencies",
                "axis": {"format": "%", "values": [0, 0.25, 0.5, 0.75, 1]},
            },
            **_named(),
            "tooltip": [
                {"field": "m", "type": "nominal", "title": "latency"},
                {"field": "x", "type": "quantitative", "title": "at most (ms)"},
                {"field": "y", "type": "quantitative", "title": "share", "format": ".1%"},
            ],
        },
    }


def _named() -> Spec:
    """The colour and the dash of a latency, in one legend."""
    dashes = {"scale": {"domain": list(_DASHES), "range": list(_DASHES.values())}, "legend": legend(symbolSize=400)}
    return {
        "color": {"field": "m", "type": "nominal", **coloured(_COLOURS, symbolSize=400)},
        "strokeDash": {"field": "m", "type": "nominal", **dashes},
    }


_MARKED = values([{"p": f"p{100 * share:g}", "y": share} for share in _QUANTILES[:3]])


def _rules() -> Spec:
    return {
        "data": _MARKED,
        "mark": {"type": "rule", "strokeDash": [2, 4], "opacity": 0.5},
        "encoding": {"y": {"field": "y", "type": "quantitative"}},
    }


def _rule_names() -> Spec:
    return {
        "data": _MARKED,
        "mark": {"type": "text", "align": "left", "baseline": "top", "dx": 3, "dy": 2},
        "encoding": {
            "x": {"value": 0},
            "y": {"field": "y", "type": "quantitative"},
            "text": {"field": "p", "type": "nominal"},
        },
    }


def latency_tail(run: MeasuredRun) -> Iterator[Chart]:
    """Latencies over percentiles that come ever nearer to 100."""
    measured = latencies_ms(run)
    if not measured:
        return
    rows = [{"m": name, **point} for name, ms in measured.items() for point in _tail(ms)]
    yield Chart(
        "latency-tail",
        "Latencies: tail",
        "Latency at each percentile, from the median on. From each mark of the axis to the next, a tenth of the "
        f"latencies is left. A curve ends at its single longest latency. {_told(measured, (0.99, 0.999))}",
        framed(260, [_tail_curves(rows, measured)]),
    )


def _tail(ms: Floats) -> list[dict[str, float]]:
    """``x`` is one in how many latencies is longer, ``y`` the latency."""
    beyond = np.geomspace(min(2, len(ms)), len(ms), 1 + _TAIL * max(1, round(np.log10(len(ms)) + 0.5)))
    found = np.quantile(ms, 1 - 1 / beyond, method="inverted_cdf")
    found[-1] = ms.max()
    points = [(rounded(x), rounded(_positive(y))) for x, y in zip(beyond.tolist(), found.tolist(), strict=True)]
    kept = [points[0], *(after for before, after in pairwise(points) if after != before)]
    return [{"x": x, "y": y} for x, y in kept]


_PERCENTILE = "format(100 - 100 / datum.value, '~r') + '%'"


def _tail_curves(rows: list[dict[str, object]], measured: dict[str, Floats]) -> Spec:
    scale, axis = _milliseconds(measured, below=1.2)
    return {
        "data": values(rows),
        "transform": [{"calculate": "100 - 100 / datum.x", "as": "p"}],
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": "percentile",
                "scale": {"type": "log", "nice": False},
                "axis": {"values": [2, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7], "labelExpr": _PERCENTILE},
            },
            "y": {"field": "y", "type": "quantitative", "title": "milliseconds", "scale": scale, "axis": axis},
            **_named(),
            "tooltip": [
                {"field": "m", "type": "nominal", "title": "latency"},
                {"field": "p", "type": "quantitative", "title": "percentile", "format": ".6~r"},
                {"field": "y", "type": "quantitative", "title": "at most (ms)"},
            ],
        },
    }


def _told(measured: dict[str, Floats], shares: tuple[float, ...] = (0.5, 0.99)) -> str:
    said = (
        f"{name} " + ", ".join(f"p{100 * q:g} {figure(float(np.quantile(ms, q)))} ms" for q in shares)
        for name, ms in measured.items()
    )
    return "; ".join(said) + "."


def _table(measured: dict[str, Floats]) -> Table:
    header = ("milliseconds", "least", "p50", "p90", "p99", "p99.9", "most", "latencies")
    return Table(
        header,
        [
            (
                name,
                figure(float(ms.min())),
                *(figure(float(q)) for q in np.quantile(ms, _QUANTILES)),
                figure(float(ms.max())),
                f"{len(ms):,}",
            )
            for name, ms in measured.items()
        ],
    )
