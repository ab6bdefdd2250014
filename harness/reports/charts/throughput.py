"""What was completed, over time: requests and output tokens a second. Pure."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.load.latency.arrivals import Arrivals
from harness.reports.charts.chart import Chart, Table
from harness.reports.charts.grid import Floats, Grid, Whole
from harness.reports.charts.marks import faults_told, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import (
    BLUE,
    LINE,
    PURPLE,
    TEAL,
    Spec,
    at_second,
    coloured,
    framed,
    legend,
    rounded,
    time_axis,
    tip,
    values,
)
from harness.reports.text import figure

_COMPLETED, _FAILED = "completed", "failed"
_COLOURS = {_COMPLETED: BLUE, _FAILED: PURPLE}
_DASHES = {_COMPLETED: [1, 0], _FAILED: [4, 2]}
_MOST = 100
_EACH = 8
"""Events in a slice, on average."""
_AT_A_TIME = 1 << 20
"""Tokens whose times are computed at a time: a large load has hundreds of millions."""
_TABLE_ROWS = 10


def requests_over_time(run: MeasuredRun) -> Iterator[Chart]:
    """Requests that completed, and that failed, in each slice of time."""
    if not run.rows:
        return
    grid = _slices(run, int(run.completed.sum()))
    counted = {_COMPLETED: _ended(run, grid, run.completed), _FAILED: _ended(run, grid, run.failed)}
    if not counted[_FAILED].any():
        del counted[_FAILED]
    rows = [row for name, counts in counted.items() for row in _rates(grid, counts, k=name)]
    yield Chart(
        "requests-over-time",
        "Requests completed over time",
        f"Requests a second that ended in each slice of {grid.step:g} s: {int(run.completed.sum()):,} completed, "
        f"{figure(run.completed.sum() / run.end)} a second on average and at most "
        f"{figure(counted[_COMPLETED].max() / grid.step)}; {int(run.failed.sum()):,} failed.{faults_told(run)}",
        framed(170, with_faults(run, [_steps(run, rows, list(counted))])),
        _table(run),
    )


def tokens_over_time(run: MeasuredRun) -> Iterator[Chart]:
    """Output tokens of completed requests in each slice of time."""
    if not len(run.arrivals.due):
        return
    grid = _slices(run, int(run.arrivals.tokens.sum()))
    counts = arrived(run.arrivals, grid, run.origin)
    together = int(counts.sum())
    if not together:
        return
    yield Chart(
        "tokens-over-time",
        "Output tokens over time",
        f"Streamed output tokens a second of completed requests, in slices of {grid.step:g} s: {together:,} tokens, "
        f"{figure(together / run.end)} a second on average and at most {figure(counts.max() / grid.step)}."
        f"{faults_told(run)}",
        framed(170, with_faults(run, [_area(run, list(_rates(grid, counts)))])),
    )


def arrived(arrivals: Arrivals, grid: Grid, origin: float) -> Whole:
    """How many streamed tokens arrived in each slice. Tokens of one chunk count evenly since the chunk before."""
    counts = grid.count(arrivals.first[arrivals.streamed] - origin)
    lengths = np.diff(arrivals.ends, prepend=0)
    for low, high in _portions(arrivals.ends):
        begins = np.repeat(arrivals.first[low:high] - origin, lengths[low:high])
        start = int(arrivals.ends[low] - lengths[low])
        since = np.cumsum(arrivals.itl[start : int(arrivals.ends[high - 1])])
        # The sum runs on over all requests: what it was at the beginning of each is taken off again.
        firsts = arrivals.ends[low:high] - lengths[low:high] - start
        before = np.concatenate([[0.0], since])[firsts]
        counts = counts + grid.count(begins + since - np.repeat(before, lengths[low:high]))
    return counts


def _portions(ends: Whole) -> Iterator[tuple[int, int]]:
    """Consecutive requests, from the first to before the second, with about ``_AT_A_TIME`` tokens."""
    low = 0
    while low < len(ends):
        done = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _AT_A_TIME, side="right")))
        yield low, high
        low = high


def _slices(run: MeasuredRun, events: int) -> Grid:
    """Slices of a few events each: rates of fewer would jump up and down."""
    return Grid.over(run.end, int(np.clip(events // _EACH, 10, _MOST)))


def _ended(run: MeasuredRun, grid: Grid, which: Any) -> Whole:
    return grid.count(run.ended[which])


def _rates(grid: Grid, counts: Whole, **more: str) -> Iterator[dict[str, Any]]:
    every = counts.tolist()
    for t, n in zip(grid.edges.tolist(), [*every, every[-1]], strict=True):
        yield {"t": at_second(t), "y": rounded(n / grid.step), **more}


def _steps(run: MeasuredRun, rows: list[dict[str, Any]], names: list[str]) -> Spec:
    dashes = {"domain": names, "range": [_DASHES[name] for name in names]}
    return {
        "data": values(rows),
        "mark": LINE | {"interpolate": "step-after"},
        "encoding": {
            "x": time_axis("t", run.end),
            "y": {"field": "y", "type": "quantitative", "title": "requests/s", "axis": {"tickCount": 5}},
            "color": {"field": "k", "type": "nominal", **coloured({name: _COLOURS[name] for name in names})},
            "strokeDash": {"field": "k", "type": "nominal", "scale": dashes, "legend": legend()},
            "tooltip": [tip("k", "requests", "nominal"), tip("t", "from (s)"), tip("y", "a second")],
        },
    }


def _area(run: MeasuredRun, rows: list[dict[str, Any]]) -> Spec:
    return {
        "data": values(rows),
        "mark": {"type": "area", "interpolate": "step-after", "color": TEAL, "opacity": 0.65, "clip": True},
        "encoding": {
            "x": time_axis("t", run.end),
            "y": {"field": "y", "type": "quantitative", "title": "output tokens/s", "axis": {"tickCount": 5}},
            "tooltip": [tip("t", "from (s)"), tip("y", "tokens a second")],
        },
    }


def _table(run: MeasuredRun) -> Table:
    grid = Grid.over(run.end, _TABLE_ROWS)
    columns: list[Floats | Whole] = [_ended(run, grid, run.completed), _ended(run, grid, run.failed)]
    columns.append(arrived(run.arrivals, grid, run.origin) / grid.step)
    return Table(
        ("ended in (s)", "completed", "failed", "output tokens/s"),
        [
            (f"{begin:.4g} to {begin + grid.step:.4g}", f"{int(done):,}", f"{int(lost):,}", figure(float(tokens)))
            for begin, done, lost, tokens in zip(grid.begins.tolist(), *(one.tolist() for one in columns), strict=True)
        ],
    )
