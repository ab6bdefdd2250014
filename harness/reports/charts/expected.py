"""Counters as they were predicted and as they were read. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from harness.checkers.token_sources import SOURCES
from harness.reports.charts.chart import Chart
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.servers import present_sources
from harness.reports.charts.style import (
    GREY,
    ORANGE,
    RED,
    TEAL,
    TICKS,
    TOKENS,
    Spec,
    coloured,
    framed,
    rounded,
    shaped,
    tip,
    values,
)
from harness.reports.counters import CounterRow
from harness.reports.counters import rows as counter_rows
from harness.reports.text import clean, count, plural
from harness.verdict import Verdict

_MOST = 40
_COLOURS = {"invalid": RED, "unknown": ORANGE, "valid": TEAL}
_SHAPES = {"invalid": "cross", "unknown": "triangle-up", "valid": "circle"}


def counter_differences(run: MeasuredRun) -> Iterator[Chart]:
    """How far counters are from what was predicted, if any is."""
    known = [one for one in counter_rows(run.report.judgement.comparisons) if _share(one) is not None]
    off = [one for one in known if one.verdict is not Verdict.VALID]
    if not off:
        return
    # The same counters of other servers stand beside them: perhaps they are right there.
    counters = {one.counter for one in off}
    shown = sorted((one for one in known if one.counter in counters), key=_gravity)[:_MOST]
    rows = [_difference(one) for one in shown]
    yield Chart(
        "counter-differences",
        "Counters beside their predictions",
        f"{plural(len(off), 'counter')} of {len(known):,} not as predicted. A difference is shown as a share of the "
        "larger of both values: at -100 % nothing was counted of what was expected, at +100 % nothing was expected of "
        f"what was counted. {_told(shown)}",
        framed(22 * len(rows) + 20, _differences(rows)),
    )


def _share(one: CounterRow) -> float | None:
    """The difference from the nearest bound, as a share of the larger of both values, signed."""
    difference, bounds, observed = one.difference, one.expected, one.observed
    if difference is None or bounds is None or observed is None:
        return None
    nearest = bounds.high if difference > 0 else bounds.low
    return difference / max(abs(nearest), abs(observed)) if difference else 0.0


def _gravity(one: CounterRow) -> tuple[bool, bool, float]:
    return one.verdict is not Verdict.INVALID, one.verdict is Verdict.VALID, -abs(_share(one) or 0.0)


def _difference(one: CounterRow) -> dict[str, Any]:
    return {
        "c": clean(f"{one.server} {one.counter}", 70),
        "d": rounded(_share(one) or 0.0, 3),
        "v": one.verdict.value,
        "e": str(one.expected),
        "o": count(one.observed),
    }


def _told(shown: Sequence[CounterRow]) -> str:
    first = shown[0]
    return clean(
        f"First, {first.counter} of {first.server}: expected {first.expected}, observed {count(first.observed)}.", 300
    )


def _differences(rows: list[dict[str, Any]]) -> list[Spec]:
    there = {row["v"] for row in rows}
    colours = coloured({name: colour for name, colour in _COLOURS.items() if name in there})
    shapes = shaped({name: shape for name, shape in _SHAPES.items() if name in there})
    x = {"field": "d", "type": "quantitative", "title": "difference", "scale": {"domain": [-1, 1]}}
    y = {"field": "c", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 190, "grid": True}}
    return [
        {"data": values([{"x": 0}]), "mark": {"type": "rule", "opacity": 0.6}, "encoding": {"x": {"datum": 0}}},
        {
            "data": {"name": "counters", **values(rows)},
            "mark": {"type": "rule", "strokeWidth": 2, "color": GREY, "opacity": 0.6},
            "encoding": {
                "y": y,
                "x": x | {"axis": {"format": "+.0%", "tickCount": {"expr": "width < 320 ? 2 : 4"}}},
                "x2": {"datum": 0},
            },
        },
        {
            "data": {"name": "counters"},
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "color": {"field": "v", "type": "nominal", **colours},
                "shape": {"field": "v", "type": "nominal", **shapes},
                "tooltip": [
                    tip("c", "counter", "nominal"),
                    tip("e", "expected", "nominal"),
                    tip("o", "observed", "nominal"),
                    tip("v", "verdict", "nominal"),
                ],
            },
        },
    ]


def token_sources(run: MeasuredRun) -> Iterator[Chart]:
    """Where the prompt tokens of each server came from, observed beside expected."""
    found = [one for one in counter_rows(run.report.judgement.comparisons) if one.counter in SOURCES]
    rows = [row for one in found for row in _source_bars(one)]
    if not any(row["n"] for row in rows):
        return
    servers = list(dict.fromkeys(row["s"] for row in rows))
    yield Chart(
        "token-sources",
        "Where prompt tokens came from",
        "Prompt tokens of each server by source: computed there (local_compute), found in its own cache "
        "(local_cache_hit), or received by KV transfer (external_kv_transfer); for each server, what was observed "
        f"above what was predicted. {_sums(found)}",
        framed(52 * len(servers) + 10, [_stacked(rows, servers)]),
    )


def _source_bars(one: CounterRow) -> Iterator[dict[str, Any]]:
    """A bar as observed and one as predicted; of a range, its lower end."""
    expected = None if one.expected is None else one.expected.low
    for what, value in (("observed", one.observed), ("expected", expected)):
        if value is not None:
            yield {"s": clean(one.server, 40), "w": what, "k": one.counter, "n": max(int(value), 0)}


def _sums(found: Sequence[CounterRow]) -> str:
    parts = (
        f"{one.server} {one.counter}: {count(one.observed)} of {one.expected}"
        for one in found
        if one.observed or (one.expected and one.expected.high)
    )
    return clean("; ".join(parts), 600) + "."


def _stacked(rows: list[dict[str, Any]], servers: Sequence[str]) -> Spec:
    return {
        "data": values(rows),
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "s", "type": "nominal", "title": None, "sort": list(servers), "axis": {"labelLimit": 150}},
            "yOffset": {"field": "w", "type": "nominal", "sort": ["observed", "expected"]},
            "x": {
                "field": "n",
                "type": "quantitative",
                "title": "prompt tokens",
                "axis": {**TICKS, **TOKENS, "grid": True},
            },
            "color": {"field": "k", "type": "nominal", **coloured(present_sources(rows))},
            "opacity": {
                "field": "w",
                "type": "ordinal",
                "scale": {"domain": ["observed", "expected"], "range": [1, 0.45]},
                "legend": None,
            },
            "tooltip": [
                tip("s", "server", "nominal"),
                tip("w", "what", "nominal"),
                tip("k", "source", "nominal"),
                tip("n", "tokens", format=",d"),
            ],
        },
    }
