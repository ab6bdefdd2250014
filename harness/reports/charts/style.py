"""What all charts have in common: the frame of a specification, its colours, axes and legends.

Fonts, and the colours of texts and grids, are the page's. A colour here has a contrast of at least 3 to 1 with a white
page and with a dark one. No meaning is told by colour alone: a shape, a dash or a position tells it, too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

BLUE, ORANGE, TEAL = "#3b82d0", "#c9711a", "#159a80"
PURPLE, RED, GREY, YELLOW = "#a463c4", "#dd4440", "#808891", "#9c8420"
COLOURS = (BLUE, ORANGE, TEAL, PURPLE, RED, GREY, YELLOW)

SECONDS = "seconds since the load began"


def framed(height: int, layers: Sequence[Spec], **more: Any) -> Spec:
    """A specification as wide as its place on the page; ``height`` in pixels."""
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **more,
        "layer": list(layers),
    }


def values(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Data in the specification."""
    return {"values": [dict(row) for row in rows]}


def time_axis(field: str, end: float, **more: Any) -> Spec:
    """The channel of a time since the load began."""
    scale = {"domain": [0, rounded(end, 4)], "nice": False}
    return {"field": field, "type": "quantitative", "title": SECONDS, "scale": scale, "axis": TICKS, **more}


TOKENS: Spec = {"labelExpr": "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '~s')"}
"""Labels of large numbers."""

TICKS: Spec = {"tickCount": {"expr": "max(3, min(10, floor(width / 90)))"}, "labelFlush": True, "grid": False}
"""Few ticks on a narrow page."""


def legend(**more: Any) -> Spec:
    """A legend above the chart, in as many columns as there is room for."""
    return {
        "orient": "top",
        "direction": "horizontal",
        "title": None,
        # The chart's own width must not be asked for: it depends on the legend's size. Unknown counts as narrow.
        "columns": {"expr": "containerSize()[0] > 640 ? 6 : containerSize()[0] > 420 ? 2 : 1"},
        "labelLimit": 200,
        "columnPadding": 14,
        **more,
    }


LINE: Spec = {"type": "line", "strokeWidth": 2, "clip": True}


def curve(rows: Sequence[Mapping[str, Any]], encoding: Spec, dash: Spec, most_points: int = 250) -> Spec:
    """A layer of lines, told apart by their dash too, and of the measurements on them if those are few."""
    points: Spec = {"mark": {"type": "point", "filled": True, "size": 18, "opacity": 1, "clip": True}}
    few = len(rows) <= most_points
    lines = {"mark": LINE, "encoding": {"strokeDash": dash} if dash else {}}
    return {"data": values(rows), "encoding": encoding, "layer": [lines, points] if few else [lines]}


def dashed(named: Mapping[str, Sequence[int]], **more: Any) -> Spec:
    """A scale and a legend of the names and their dashes."""
    # A second legend beside the first one would not fit on a narrow page.
    below = {"orient": "bottom", "offset": 6}
    lines = {"symbolType": "stroke", "symbolSize": 400, "symbolStrokeColor": GREY, "symbolStrokeWidth": 2}
    return {
        "scale": {"domain": list(named), "range": [list(one) for one in named.values()]},
        "legend": legend(**lines, **below, **more),
    }


def shaped(named: Mapping[str, str], **more: Any) -> Spec:
    """A scale and a legend of the names and their shapes."""
    return {"scale": {"domain": list(named), "range": list(named.values())}, "legend": legend(**more)}


def tip(field: str, title: str, kind: str = "quantitative", **more: Any) -> Spec:
    """A line of a tooltip."""
    return {"field": field, "type": kind, "title": title, **more}


def coloured(named: Mapping[str, str], **more: Any) -> Spec:
    """A scale and a legend of the names and their colours."""
    return {"scale": {"domain": list(named), "range": list(named.values())}, "legend": legend(**more)}


def logarithmic(least: float, most: float) -> tuple[Spec, Spec]:
    """Scale and axis from ``least`` to ``most``, with ticks at 1, 2 and 5, or at powers of ten if there are many.

    Values below lie on the edge of the chart.
    """
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [rounded(factor * 10.0**power) for power in range(low, high + 1) for factor in factors]
    inside = [tick for tick in ticks if least <= tick <= most]
    scale = {"type": "log", "nice": False, "clamp": True, "domain": [rounded(least), rounded(most)]}
    return scale, {"values": inside, "labelExpr": "format(datum.value, '~r')"}


def rounded(value: float, digits: int = 4) -> float:
    """The value to so many significant digits, as a whole number if it is one: it is short in JSON."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short


def at_second(value: float) -> float:
    """A time to a tenth of a millisecond."""
    short = round(float(value), 4)
    return int(short) if short.is_integer() else short
