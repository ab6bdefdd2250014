"""How many requests were in flight, over time. Pure."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.reports.charts.chart import Chart
from harness.reports.charts.marks import faults_told, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import BLUE, ORANGE, Spec, at_second, coloured, framed, time_axis, values

_WAITING, _STREAMING = "waiting for the first token", "receiving tokens"
_COLOURS = {_WAITING: ORANGE, _STREAMING: BLUE}


def in_flight(run: MeasuredRun) -> Iterator[Chart]:
    """The numbers of requests at the beginning of each slice of time, counted from all requests."""
    if not run.rows:
        return
    first = np.fmin(np.where(np.isnan(run.first), run.ended, run.first), run.ended)
    waiting, streaming = run.grid.at_work(run.sent, first), run.grid.at_work(first, run.ended)
    together = waiting + streaming
    peak = int(together.max())
    rows = [
        {"t": at_second(t), "n": n, "k": what}
        for what, counted in ((_WAITING, waiting), (_STREAMING, streaming))
        for t, n in zip([*run.grid.begins.tolist(), run.end], [*counted.tolist(), 0], strict=True)
    ]
    yield Chart(
        "in-flight",
        "Requests in flight",
        f"All {len(run.rows):,} requests, counted every {run.grid.step:g} s: at most {peak:,} at a time were sent and "
        f"not answered, {np.mean(together):,.1f} on average; at most {int(waiting.max()):,} of them waited for their "
        f"first token.{faults_told(run)}",
        framed(130, with_faults(run, [_areas(run, rows)])),
    )


def _areas(run: MeasuredRun, rows: list[dict[str, Any]]) -> Spec:
    return {
        "data": values(rows),
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.65},
        "encoding": {
            "x": time_axis("t", run.end),
            "y": {"field": "n", "type": "quantitative", "title": "requests", "stack": True, "axis": {"tickCount": 4}},
            "color": {"field": "k", "type": "nominal", **coloured(_COLOURS)},
            "order": {"field": "k", "sort": "descending"},
            "tooltip": [
                {"field": "t", "type": "quantitative", "title": "at (s)"},
                {"field": "k", "type": "nominal", "title": "requests"},
                {"field": "n", "type": "quantitative", "title": "number", "format": ",d"},
            ],
        },
    }
