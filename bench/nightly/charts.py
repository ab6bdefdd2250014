"""Charts of the page over all nights, as Vega-Lite specifications."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.nightly.findings import Weight, chart_id, harness_of
from bench.nightly.record import Night
from bench.nightly.results import WRONG
from bench.nightly.series import Point, Series
from bench.nightly.trend import Change, Kind
from harness.reports.charts.chart import Chart, Table
from harness.reports.text import figure, plural

_MOST_COMMITS = 6
"""More commits of the harness than these are not marked on charts: they would hide the nights."""
_HEIGHT = 190
_BAD = {"wrong outputs": "var(--invalid-mark)", "failed requests": "var(--unknown-mark)"}
_LINES = 3
_FEW = 120
"""More nights are drawn smaller and fainter."""


def trend_chart(series: Series) -> Chart:
    """A figure of a job over the nights, with its levels, its changes, and new versions beside them."""
    return Chart(
        name=chart_id(series),
        title=f"{series.title}, {series.figure.unit}",
        description=_description(series),
        spec={
            "width": "container",
            "height": _HEIGHT,
            "layer": [*_nights(series), *_levels(series), *_marks(series), *_changes(series)],
        },
        table=Table(
            ("night", f"median, {series.figure.unit}", "smallest", "largest", "engine", "harness"),
            [
                (
                    p.night.name,
                    figure(p.value),
                    figure(p.low),
                    figure(p.high),
                    p.night.engine_version,
                    harness_of(p.night),
                )
                for p in reversed(series.points)
            ],
        ),
    )


def moment(night: Night) -> str:
    """Where a night stands on the time axis: its date, later nights of a date an hour apart."""
    date, _, number = night.name.partition(".")
    return f"{date}T{min(int(number or 1), 24) - 1:02}:00:00"


def _description(series: Series) -> str:
    values = [point.value for point in series.points]
    unit = series.figure.unit
    text = f"{plural(len(values), 'night')}, {figure(min(values))} to {figure(max(values))} {unit}; "
    text += f"the newest: {figure(values[-1])} {unit}. A dot is the median of a night's runs, "
    text += "the line through it their range. "
    if series.changes:
        text += f"{plural(len(series.changes), 'change')}: "
        text += ", ".join(f"{_arrow(c)} {c.kind} at {series.points[c.at].night.name}" for c in series.changes) + "."
    elif len(values) < 20:
        text += "Changes are looked for from 20 nights on."
    else:
        text += "No change is more than chance."
    if series.left_out:
        text += f" Left out: {plural(series.left_out, 'night')} on another deployment or with other flags."
    return text


def _arrow(change: Change) -> str:
    return "▲" if change.after > change.before else "▼"


def _axes(series: Series) -> dict[str, Any]:
    scale = {"zero": False, "nice": True, "padding": 8}
    return {
        "x": {"field": "t", "type": "temporal", "title": None, "axis": {"labelOverlap": True, "grid": False}},
        "y": {"field": "value", "type": "quantitative", "title": series.figure.unit, "scale": scale},
    }


def _nights(series: Series) -> Iterator[Mapping[str, Any]]:
    values = [_row(point) for point in series.points]
    few = len(values) <= _FEW
    axes = _axes(series)
    y = axes["y"] | {"field": "low"}
    yield {
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "rule", "color": "var(--strong-line)", "opacity": 0.5 if few else 0.25},
                "encoding": axes | {"y": y, "y2": {"field": "high"}},
            },
            {
                "mark": {
                    "type": "point",
                    "filled": True,
                    "size": 28 if few else 12,
                    "color": "var(--c1)",
                    "opacity": 0.9,
                },
                "encoding": axes
                | {
                    "tooltip": [
                        {"field": "night", "title": "night"},
                        {"field": "value", "title": series.figure.unit, "format": ",.4~g"},
                        {"field": "range", "title": "range"},
                        {"field": "engine", "title": "engine"},
                        {"field": "harness", "title": "harness"},
                    ]
                },
            },
        ],
    }


def _row(point: Point) -> dict[str, Any]:
    return {
        "t": moment(point.night),
        "night": point.night.name,
        "value": round(point.value, 4),
        "low": round(point.low, 4),
        "high": round(point.high, 4),
        "range": f"{figure(point.low)} to {figure(point.high)}",
        "engine": point.night.engine_version,
        "harness": harness_of(point.night),
    }


def _levels(series: Series) -> Iterator[Mapping[str, Any]]:
    """The levels between changes as lines, drifts as sloping ones."""
    parts = list(_parts(series))
    if not parts:
        return
    axes = _axes(series)
    yield {
        "data": {"values": parts},
        "mark": {"type": "rule", "color": "var(--c2)", "strokeWidth": 2.5},
        "encoding": {
            "x": axes["x"],
            "x2": {"field": "t2"},
            "y": axes["y"],
            "y2": {"field": "value2"},
        },
    }


def _parts(series: Series) -> Iterator[dict[str, Any]]:
    begin = 0
    for change in series.changes:
        yield _part(series, begin, change.at - 1, change.before, change.before)
        if change.kind is Kind.DRIFT:
            yield _part(series, change.at - 1, min(change.until, len(series.points) - 1), change.before, change.after)
        begin = min(change.until, len(series.points) - 1)
    if series.changes:
        after = series.changes[-1].after
        yield _part(series, begin, len(series.points) - 1, after, after)


def _part(series: Series, begin: int, end: int, low: float, high: float) -> dict[str, Any]:
    first, last = series.points[max(begin, 0)], series.points[max(end, 0)]
    return {"t": moment(first.night), "t2": moment(last.night), "value": low, "value2": high}


def _changes(series: Series) -> Iterator[Mapping[str, Any]]:
    for weight in (Weight.WORSE, Weight.BETTER):
        rows = [
            {"t": moment(series.points[one.at].night), "text": f"{_arrow(one)} {one.after / one.before - 1:+.0%}"}
            for one in series.changes
            if series.worse(one) == (weight is Weight.WORSE)
        ]
        colour = "var(--invalid-mark)" if weight is Weight.WORSE else "var(--valid-mark)"
        if rows:
            yield _upright(rows, colour, dash=[], text_y=12, bold=True)


def _marks(series: Series) -> Iterator[Mapping[str, Any]]:
    """New versions of the engine and the harness."""
    rows = [
        {"t": moment(night), "text": text} for night, text in new_versions([point.night for point in series.points])
    ]
    # Labels of versions that follow each other closely stand below each other.
    for line in range(_LINES):
        if some := rows[line::_LINES]:
            yield _upright(some, "var(--muted)", dash=[3, 3], text_y=_HEIGHT - 8 - 13 * line, bold=False)


def _upright(
    rows: Sequence[Mapping[str, str]], colour: str, *, dash: Sequence[int], text_y: int, bold: bool
) -> Mapping[str, Any]:
    x = {"field": "t", "type": "temporal", "title": None}
    text = {"type": "text", "align": "left", "dx": 4, "y": text_y, "color": colour, "fontSize": 11, "limit": 150}
    return {
        "data": {"values": list(rows)},
        "layer": [
            {
                "mark": {"type": "rule", "color": colour, "strokeDash": list(dash), "strokeWidth": 1.5},
                "encoding": {"x": x},
            },
            {
                "mark": text | {"fontWeight": "bold" if bold else "normal"},
                "encoding": {"x": x, "text": {"field": "text"}},
            },
        ],
    }


def new_versions(nights: Sequence[Night]) -> list[tuple[Night, str]]:
    """Nights with another engine or another version of the harness than the night before, and what is new.

    Commits of the harness count while they are few.
    """
    commits = sum(a.commit != b.commit for a, b in pairwise(nights))
    found = []
    for before, night in pairwise(nights):
        new = [night.engine_version] if night.engine_version != before.engine_version else []
        if night.harness_version != before.harness_version or (
            commits <= _MOST_COMMITS and night.commit != before.commit
        ):
            new.append(f"harness {night.commit[:7] or night.harness_version}")
        if new:
            found.append((night, ", ".join(new)))
    return found


def bad_chart(nights: Sequence[Night], job: str) -> Chart | None:
    """Wrong outputs and failed requests of a job, night by night; None: it never had any."""
    rows = [
        {"t": moment(night), "night": night.name, "what": what, "number": number}
        for night in nights
        for key, what in ((WRONG, "wrong outputs"), ("failed", "failed requests"))
        if (number := sum(run.metrics.get(key, 0.0) for run in night.runs if run.job == job)) > 0
    ]
    if not rows:
        return None
    totals = {what: sum(int(row["number"]) for row in rows if row["what"] == what) for what in _BAD}
    first, last = moment(nights[0]), moment(nights[-1])
    totals = {what: number for what, number in totals.items() if number}
    ticks = min(5, int(max(float(str(row["number"])) for row in rows)))
    return Chart(
        name=f"bad-{job}".lower().replace("_", "-"),
        title=f"Wrong outputs and failed requests of {job}",
        description=f"{plural(len({row['night'] for row in rows}), 'night')} of {len(nights)} had some: "
        + ", ".join(f"{number:,} {what}" for what, number in totals.items())
        + ".",
        spec={
            "width": "container",
            "height": _HEIGHT,
            "data": {"values": rows},
            "mark": {"type": "bar", "width": 5, "tooltip": True},
            "encoding": {
                "x": {
                    "field": "t",
                    "type": "temporal",
                    "title": None,
                    "scale": {"domain": [first, last]},
                    "axis": {"grid": False},
                },
                "y": {
                    "field": "number",
                    "type": "quantitative",
                    "title": "requests",
                    "axis": {"tickCount": ticks, "format": "d"},
                },
                "color": {
                    "field": "what",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": list(totals), "range": [_BAD[what] for what in totals]},
                },
            },
        },
        table=Table(
            ("night", "what", "number"),
            [(str(r["night"]), str(r["what"]), f"{r['number']:,.0f}") for r in reversed(rows)],
        ),
    )
