"""Latencies over time, and by the pair of servers that answered. Pure."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.reports.charts.chart import Chart, Table
from harness.reports.charts.grid import Floats, Grid
from harness.reports.charts.marks import faults_told, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import (
    BLUE,
    ORANGE,
    TICKS,
    Spec,
    at_second,
    coloured,
    curve,
    dashed,
    framed,
    logarithmic,
    rounded,
    shaped,
    time_axis,
    tip,
    values,
)
from harness.reports.text import clean, figure

_COLOURS = {"TTFT": BLUE, "E2E": ORANGE}
_QUANTILES = {"p50": 0.5, "p99": 0.99}
_DASHES = {"p50": [1, 0], "p99": [5, 3]}
_EACH = 20
"""Requests that a slice should have on average: fewer have no 99th percentile to speak of."""
_MOST = 90
_MOST_PAIRS = 24
_TABLE_ROWS = 10


def latency_over_time(run: MeasuredRun) -> Iterator[Chart]:
    """Median and 99th percentile of the requests that were due in each slice of time."""
    measured = _by_due(run)
    if not measured:
        return
    most = int(np.clip(max(len(due) for due, _ in measured.values()) // _EACH, 1, _MOST))
    grid = Grid.over(run.end, most)
    rows = [row for name, one in measured.items() for row in _quantiles(grid, name, *one)]
    shown = [row["y"] for row in rows if row["y"] is not None]
    yield Chart(
        "latency-over-time",
        "Latencies over time",
        f"Median and 99th percentile of the completed requests that were due in each slice of {grid.step:g} s. "
        f"{_told(rows)}{faults_told(run)}",
        framed(240, with_faults(run, [_curves(run, rows, *logarithmic(min(shown) / 1.1, max(shown) * 1.3))])),
        _table(run, measured),
    )


def _by_due(run: MeasuredRun) -> dict[str, tuple[Floats, Floats]]:
    """Due times since the load began, and latencies in milliseconds, by the name of the latency."""
    due, done = run.due, run.completed
    streamed = done & ~np.isnan(run.first)
    every = {
        "TTFT": (due[streamed], 1000 * (run.first - due)[streamed]),
        "E2E": (due[done], 1000 * (run.ended - due)[done]),
    }
    return {name: one for name, one in every.items() if len(one[0])}


def _quantiles(grid: Grid, name: str, due: Floats, ms: Floats) -> Iterator[dict[str, Any]]:
    """A row per slice and quantile. Without a request, its value is None, so that the curve is interrupted."""
    found = {place: (many, values) for place, many, values in grid.quantiles(due, ms, tuple(_QUANTILES.values()))}
    for place, begin in enumerate(grid.begins.tolist()):
        many, each = found.get(place, (0, [None] * len(_QUANTILES)))
        for quantile, value in zip(_QUANTILES, each, strict=True):
            y = None if value is None else rounded(max(float(value), 1e-3))
            yield {"t": at_second(begin + grid.step / 2), "m": name, "q": quantile, "y": y, "n": many}


def _curves(run: MeasuredRun, rows: list[dict[str, Any]], scale: Spec, axis: Spec) -> Spec:
    return curve(
        rows,
        {
            "x": time_axis("t", run.end),
            "y": {"field": "y", "type": "quantitative", "title": "milliseconds", "scale": scale, "axis": axis},
            "color": {"field": "m", "type": "nominal", **coloured(_COLOURS)},
            "detail": {"field": "q", "type": "nominal"},
            "tooltip": [
                tip("m", "latency", "nominal"),
                tip("q", "quantile", "nominal"),
                tip("y", "milliseconds", format=",.4~r"),
                tip("t", "due about (s)"),
                tip("n", "requests", format=",d"),
            ],
        },
        {"field": "q", "type": "nominal", **dashed(_DASHES)},
    )


def _told(rows: list[dict[str, Any]]) -> str:
    slowest = max((row for row in rows if row["q"] == "p99" and row["y"] is not None), key=lambda row: float(row["y"]))
    return f"The highest is the p99 of {slowest['m']} at {slowest['t']:.1f} s: {figure(slowest['y'])} ms."


def _table(run: MeasuredRun, measured: dict[str, tuple[Floats, Floats]]) -> Table:
    grid = Grid.over(run.end, _TABLE_ROWS)
    wanted = tuple(_QUANTILES.values())
    found = {name: {place: each for place, _, each in grid.quantiles(*one, wanted)} for name, one in measured.items()}
    header = ["due in (s)", *(f"{name} {quantile} (ms)" for name in measured for quantile in _QUANTILES)]
    return Table(
        header,
        [
            [f"{begin:.4g} to {begin + grid.step:.4g}"]
            + [figure(one) for name in measured for one in found[name].get(place, [None] * len(wanted))]
            for place, begin in enumerate(grid.begins.tolist())
        ],
    )


def latency_by_pair(run: MeasuredRun) -> Iterator[Chart]:
    """TTFT of each pair of servers, if there are several."""
    pairs = _pairs(run)
    if len(pairs) < 2:
        return
    shown = sorted(pairs, key=lambda row: -row["z"])[:_MOST_PAIRS]
    slowest, fastest = shown[0], shown[-1]
    left_out = f" The {_MOST_PAIRS} slowest of {len(pairs):,} pairs are drawn." if len(shown) < len(pairs) else ""
    yield Chart(
        "latency-by-pair",
        "TTFT by pair of servers",
        f"From the median to the 99th percentile of each pair that the proxy reported. The slowest is {slowest['p']} "
        f"with {figure(slowest['z'])} ms, the fastest drawn {fastest['p']} with {figure(fastest['z'])} ms "
        f"(p99).{left_out}",
        framed(30 * len(shown) + 20, _pair_layers(shown)),
        Table(
            ("prefill and decode server", "requests", "p50 (ms)", "p90 (ms)", "p99 (ms)"),
            [(row["p"], f"{row['n']:,}", *(figure(row[at]) for at in "xyz")) for row in shown],
        ),
    )


def _pairs(run: MeasuredRun) -> list[dict[str, Any]]:
    grouped: dict[str, list[float]] = {}
    for row in run.rows:
        if row.ttft is not None and row.prefill_server and row.decode_server:
            name = clean(f"{row.prefill_server} → {row.decode_server}", 60)
            grouped.setdefault(name, []).append(row.ttft)
    return [_pair(name, 1000 * np.array(seconds)) for name, seconds in grouped.items()]


def _pair(name: str, ms: Floats) -> dict[str, Any]:
    x, y, z = (rounded(one) for one in np.quantile(ms, (0.5, 0.9, 0.99)).tolist())
    return {"p": name, "n": len(ms), "x": x, "y": y, "z": z}


def _pair_layers(rows: list[dict[str, Any]]) -> list[Spec]:
    names: Spec = {"field": "p", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 150}}
    tooltip = [
        tip("p", "servers", "nominal"),
        tip("n", "requests", format=",d"),
        *(tip(at, f"TTFT {name} (ms)") for at, name in zip("xyz", ("p50", "p90", "p99"), strict=True)),
    ]
    position: Spec = {"type": "quantitative", "title": "TTFT (ms)", "axis": TICKS}
    shapes = {"p50": ("x", "circle"), "p90": ("y", "diamond"), "p99": ("z", "triangle-left")}
    kinds = shaped({name: shape for name, (_, shape) in shapes.items()})
    bars: Spec = {
        "data": {"name": "pairs", **values(rows)},
        "mark": {"type": "rule", "strokeWidth": 4, "opacity": 0.4, "color": BLUE},
        "encoding": {"y": names, "x": position | {"field": "x"}, "x2": {"field": "z"}, "tooltip": tooltip},
    }
    return [bars] + [
        {
            "data": {"name": "pairs"},
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": BLUE},
            "encoding": {
                "y": names,
                "x": position | {"field": field},
                "shape": kinds | {"datum": name, "type": "nominal"},
                "tooltip": tooltip,
            },
        }
        for name, (field, _) in shapes.items()
    ]
