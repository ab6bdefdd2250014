"""The requests as bars over time, beside the faults and readings of the run. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.reports.charts.bars import COLOURS, SEGMENTS, SHAPES, bar, mark_of
from harness.reports.charts.chart import Chart
from harness.reports.charts.lanes import lanes
from harness.reports.charts.marks import faults_told, phase_layers, reading_ticks, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.sampling import sample, shown_of
from harness.reports.charts.style import Spec, coloured, framed, legend, time_axis, values

MOST = 480
"""Bars; more would make the page large."""
_ROW = 16
"""Pixels."""
_RANKS = {**{mark: rank for rank, mark in enumerate(SHAPES)}, "": len(SHAPES)}


def timeline(run: MeasuredRun) -> Iterator[Chart]:
    """At most ``MOST`` requests, those with something wrong first."""
    if not run.rows:
        return
    marks = [mark_of(row) for row in run.rows]
    places = sample([_RANKS[mark] for mark in marks], MOST)
    chosen = places.tolist()
    lane = lanes([(run.rows[place].due, run.rows[place].ended) for place in chosen])
    rows = [bar(run, one, place) for one, place in zip(lane, chosen, strict=True)]
    shown = shown_of(len(rows), len(run.rows), "requests")
    sampled = len(rows) < len(run.rows)
    how = ", first those that are wrong, doubtful or failed, the others evenly over time" if sampled else ""
    layers = [*phase_layers(run), _bars(run, rows), *_marked(rows), *reading_ticks(run)]
    yield Chart(
        "timeline",
        f"Timeline of {shown}" if sampled else "Timeline of requests",
        f"A bar for each request, in the first row that was free when it was due: {shown}{how}. "
        f"{_told(marks)}{faults_told(run)} "
        "Ticks below are readings of the servers' metrics. Drag to move, turn the wheel with Ctrl to zoom, "
        "double-click to see all again.",
        framed(
            int(np.clip(_ROW * (1 + max(lane)), 90, 560)),
            with_faults(run, layers),
        ),
    )


def _told(marks: Sequence[str]) -> str:
    counted = [f"{marks.count(name):,} {name}" for name in SHAPES if name in marks]
    return (
        f"With marks, of all requests: {', '.join(counted)}."
        if counted
        else "None failed, and no output is wrong or doubtful."
    )


def _bars(run: MeasuredRun, rows: Sequence[dict[str, Any]]) -> Spec:
    names = list(SEGMENTS)
    there = {number for row in rows for number in row["k"]}
    return {
        "data": {"name": "requests", **values(rows)},
        "params": [_ZOOM],
        "transform": [
            {"flatten": ["k", "a", "b"]},
            {"calculate": "datum.i + 0.85", "as": "j"},
            {"calculate": f"{names}[datum.k]", "as": "n"},
            {"calculate": "1000 * (datum.b - datum.a)", "as": "t"},
        ],
        "mark": {"type": "rect", "clip": True},
        "encoding": {
            "x": time_axis("a", run.end),
            "x2": {"field": "b"},
            "y": _LINES,
            "y2": {"field": "j"},
            "color": {
                "field": "n",
                "type": "nominal",
                **coloured({name: SEGMENTS[name] for number, name in enumerate(names) if number in there}),
            },
            "tooltip": [
                *_TOOLTIP,
                {"field": "n", "type": "nominal", "title": "here"},
                {"field": "t", "type": "quantitative", "title": "takes (ms)", "format": ",.1f"},
            ],
        },
    }


_ZOOM: Spec = {
    "name": "zoom",
    "select": {
        "type": "interval",
        "encodings": ["x", "y"],
        # Without a key, the wheel scrolls the page, as a touch does.
        "zoom": "wheel![event.ctrlKey || event.metaKey]",
        "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup] > window:pointermove!",
    },
    "bind": "scales",
}

_LINES: Spec = {
    "field": "i",
    "type": "quantitative",
    "title": "requests",
    "scale": {"reverse": True, "zero": False, "nice": False},
    "axis": {"labels": False, "ticks": False, "grid": False, "domain": False},
}

_TOOLTIP: list[Spec] = [
    {"field": "r", "type": "nominal", "title": "request"},
    {"field": "v", "type": "nominal", "title": "servers"},
    {"field": "f", "type": "quantitative", "title": "TTFT (ms)", "format": ",.1f"},
    {"field": "e", "type": "quantitative", "title": "ended at (s)", "format": ".3f"},
    {"field": "o", "type": "nominal", "title": "output"},
]


def _marked(rows: Sequence[dict[str, Any]]) -> Iterator[Spec]:
    present = [name for name in SHAPES if any(row.get("m") == name for row in rows)]
    if not present:
        return
    shapes = {"domain": present, "range": [SHAPES[name] for name in present]}
    fills = {"domain": present, "range": [COLOURS[name] for name in present]}
    yield {
        "data": {"name": "requests"},
        "transform": [{"filter": "isValid(datum.m)"}, {"calculate": "datum.i + 0.4", "as": "c"}],
        "mark": {"type": "point", "size": 60, "opacity": 1, "strokeWidth": 0, "clip": True, "xOffset": 5},
        "encoding": {
            "x": {"field": "e", "type": "quantitative"},
            "y": {"field": "c", "type": "quantitative"},
            "shape": {
                "field": "m",
                "type": "nominal",
                "scale": shapes,
                "legend": legend(orient="bottom", offset=6, symbolStrokeWidth=0),
            },
            "fill": {
                "field": "m",
                "type": "nominal",
                "scale": fills,
                "legend": legend(orient="bottom", offset=6, symbolStrokeWidth=0),
            },
            "tooltip": [
                *_TOOLTIP,
                {"field": "m", "type": "nominal", "title": "what"},
                {"field": "w", "type": "nominal", "title": "why"},
            ],
        },
    }
