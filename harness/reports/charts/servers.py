"""The servers' metrics over time: requests, KV blocks in use, and where prompt tokens came from. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.checkers.token_sources import SOURCES
from harness.facts import Role
from harness.reports.charts.chart import Chart
from harness.reports.charts.marks import faults_told, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.sampling import sample
from harness.reports.charts.server_readings import ServerReadings, server_readings
from harness.reports.charts.style import (
    BLUE,
    COLOURS,
    LINE,
    ORANGE,
    PURPLE,
    TEAL,
    TOKENS,
    Spec,
    at_second,
    coloured,
    curve,
    dashed,
    framed,
    rounded,
    time_axis,
    tip,
    values,
)
from harness.reports.text import clean, count

SOURCE_COLOURS = dict(zip(SOURCES, (ORANGE, PURPLE, TEAL), strict=True))
_BY_ROLE = {Role.PREFILL: ORANGE, Role.DECODE: BLUE}
_SOLID, _DASHED, _DOTTED = [1, 0], [6, 3], [2, 2]
_GAUGES = {"running": _SOLID, "waiting": _DASHED}
_DURING = 3
"""Readings from which on a gauge is drawn: fewer are those before and after the load, when nothing runs."""
_MOST_ROWS = 600
"""Readings of a gauge, or of all counters, in a chart; of more, some are drawn, evenly over time."""


def servers_over_time(run: MeasuredRun) -> Iterator[Chart]:
    """What each server was doing, as far as it was read during the load."""
    if not run.rows:
        return
    readings = server_readings(run)
    during = [one for one in readings if len(one.times) >= _DURING]
    if during:
        yield from _requests(run, during)
        yield from _kv_usage(run, during)
    yield from _sources(run, readings)


def _requests(run: MeasuredRun, readings: Sequence[ServerReadings]) -> Iterator[Chart]:
    rows = [row for name in ("running", "waiting") for row in _rows(readings, name)]
    if not rows:
        return
    most = {name: max((row["y"] for row in rows if row["k"] == name), default=0) for name in ("running", "waiting")}
    yield Chart(
        "server-requests",
        "Requests on the servers",
        f"Requests that each server computed (running) and had queued (waiting): at most {count(most['running'])} and "
        f"{count(most['waiting'])} at a server in {_read(readings)}.{faults_told(run)}",
        framed(200, with_faults(run, [_lines(run, readings, rows, "requests", _GAUGES)])),
    )


def _kv_usage(run: MeasuredRun, readings: Sequence[ServerReadings]) -> Iterator[Chart]:
    rows = list(_rows(readings, "kv_usage"))
    if not rows:
        return
    fullest = max(rows, key=lambda row: float(row["y"]))
    yield Chart(
        "server-kv",
        "KV cache in use",
        f"The share of each server's KV blocks that requests hold; blocks that are only cached do not count. At most "
        f"{fullest['y']:.1%}, on {fullest['s']}, in {_read(readings)}.{faults_told(run)}",
        framed(150, with_faults(run, [_lines(run, readings, rows, "KV blocks in use", {"kv_usage": _SOLID})])),
    )


def _read(readings: Sequence[ServerReadings]) -> str:
    return f"{sum(len(one.times) for one in readings):,} readings"


def _rows(readings: Sequence[ServerReadings], name: str) -> Iterator[dict[str, Any]]:
    most = _MOST_ROWS // len(readings)
    for one in readings:
        for at, value in _thinned(list(one.values(name)), most):
            yield {"t": at_second(at), "y": rounded(value), "k": name, "s": clean(one.server, 40)}


def _lines(
    run: MeasuredRun,
    readings: Sequence[ServerReadings],
    rows: list[dict[str, Any]],
    title: str,
    dashes: Mapping[str, Sequence[int]],
) -> Spec:
    share = title.startswith("KV")
    dash = {"field": "k", "type": "nominal", **dashed(dashes)}
    axis = {"tickCount": 5, **({"format": "~%"} if share else {})}
    return curve(
        rows,
        {
            "x": time_axis("t", run.end),
            "y": {"field": "y", "type": "quantitative", "title": title, "axis": axis},
            "color": {"field": "s", "type": "nominal", **coloured(_colours(readings))},
            "detail": {"field": "k", "type": "nominal"},
            "tooltip": [
                tip("s", "server", "nominal"),
                tip("k", "gauge", "nominal"),
                tip("t", "at (s)"),
                tip("y", title, **({"format": ".2%"} if share else {})),
            ],
        },
        dash if len(dashes) > 1 else {},
    )


def _colours(readings: Sequence[ServerReadings]) -> dict[str, str]:
    """A colour for each server, or for each role if there are more servers than colours."""
    names = [clean(one.server, 40) for one in readings]
    if len(readings) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    return {name: _BY_ROLE[Role(one.role)] for name, one in zip(names, readings, strict=True)}


def _sources(run: MeasuredRun, readings: Sequence[ServerReadings]) -> Iterator[Chart]:
    grown = {
        (role, source): list(_together([list(one.grown(source)) for one in readings if one.role == role]))
        # Prefill last, so that its dotted line lies above decode's where both are the same.
        for role in (Role.DECODE, Role.PREFILL)
        for source in SOURCES
    }
    grown = {key: points for key, points in grown.items() if points and points[-1][1] > 0}
    if not grown:
        return
    end = max(run.end, *(points[-1][0] for points in grown.values()))
    rows = [
        {"t": at_second(max(at, 0.0)), "y": rounded(value, 6), "k": source, "s": str(role)}
        for (role, source), points in grown.items()
        for at, value in _thinned(points, _MOST_ROWS // len(grown))
    ]
    told = "; ".join(f"{role} {source} {count(round(points[-1][1]))}" for (role, source), points in grown.items())
    yield Chart(
        "token-sources-over-time",
        "Where prompt tokens came from, over time",
        f"By how much the counters of the prompt tokens' sources had grown since before the load, all servers of a "
        f"role together. In the end: {told}.{faults_told(run)}",
        framed(200, with_faults(run, [_growth(end, rows)])),
    )


def _together(each: Sequence[list[tuple[float, float]]]) -> Iterator[tuple[float, float]]:
    """The sum of several servers' values, whenever all of them were read again, and at last."""
    last = [0.0] * len(each)
    unread = set(range(len(each)))
    moments = sorted((at, number, value) for number, points in enumerate(each) for at, value in points)
    for at, number, value in moments:
        last[number] = value
        unread.discard(number)
        # Between the readings of one round, some servers' values would be newer than others'.
        if not unread or (at, number, value) == moments[-1]:
            unread = set(range(len(each)))
            yield at, sum(last)


def present_sources(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The colours of the sources in the rows."""
    there = {row["k"] for row in rows if row.get("n", 1)}
    return {source: colour for source, colour in SOURCE_COLOURS.items() if source in there}


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    return [points[place] for place in sample([0] * len(points), max(most, 2)).tolist()]


def _growth(end: float, rows: Sequence[dict[str, Any]]) -> Spec:
    return {
        "data": values(rows),
        "mark": LINE,
        "encoding": {
            "x": time_axis("t", end),
            "y": {"field": "y", "type": "quantitative", "title": "prompt tokens", "axis": {"tickCount": 5, **TOKENS}},
            "color": {"field": "k", "type": "nominal", **coloured(present_sources(rows))},
            "strokeDash": {
                "field": "s",
                "type": "nominal",
                **dashed({Role.DECODE: _SOLID, Role.PREFILL: _DOTTED}),
            },
            "tooltip": [
                tip("s", "servers", "nominal"),
                tip("k", "source", "nominal"),
                tip("t", "at (s)"),
                tip("y", "tokens", format=",d"),
            ],
        },
    }
