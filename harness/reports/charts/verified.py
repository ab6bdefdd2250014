"""Each verified output beside the limits of noise: how far its tokens differ from teacher forcing. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from harness.reports.charts.chart import Chart
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.sampling import sample, shown_of
from harness.reports.charts.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Spec,
    coloured,
    dashed,
    framed,
    logarithmic,
    rounded,
    shaped,
    tip,
    values,
)
from harness.reports.requests import OutputStatus
from harness.reports.text import clean, figure
from harness.verify.judging.control_outputs import own_controls
from harness.verify.judging.forcing import Forced, compare_with_forcing, forcings

MOST, _MOST_CONTROLS = 800, 200
_LEAST = 1e-6
"""Nats at the edge of the chart: less than the last bits of a log-probability."""
_CONTROL = "control output"
_KINDS = {
    OutputStatus.RIGHT: "right output",
    OutputStatus.TIE: "tie",
    OutputStatus.DOUBTFUL: "doubtful output",
    OutputStatus.WRONG: "wrong output",
}
_RANKS = {OutputStatus.WRONG: 0, OutputStatus.DOUBTFUL: 1, OutputStatus.TIE: 2, OutputStatus.RIGHT: 3}
_ORDER = [_KINDS[status] for status in sorted(_RANKS, key=_RANKS.__getitem__, reverse=True)]
_COLOURS = {"right output": BLUE, "tie": BLUE, _CONTROL: GREY, "doubtful output": ORANGE, "wrong output": RED}
_SHAPES = {
    "right output": "circle",
    "tie": "diamond",
    _CONTROL: "square",
    "doubtful output": "triangle-up",
    "wrong output": "cross",
}


def verified_outputs(run: MeasuredRun) -> Iterator[Chart]:
    """Largest margin error and largest drift of each output that was teacher-forced, and of control outputs."""
    every = forcings(run.report.history)
    places = [n for n, row in enumerate(run.rows) if row.output in _RANKS and row.request_id in every]
    chosen = [places[n] for n in sample([_RANKS[run.rows[place].output] for place in places], MOST)]
    outputs = list(_outputs(run, chosen, every))
    if not outputs:
        return
    # What is drawn last lies on top.
    rows = [*_controls(run, every), *sorted(outputs, key=lambda row: _ORDER.index(row["k"]))]
    limits = run.report.judgement.outputs.noise_floor
    yield Chart(
        "verified-outputs",
        "Teacher-forced outputs beside the limits of noise",
        f"Each output that was teacher-forced, by how far it differs from that: its largest margin error (which bounds "
        f"how far a served token can be behind the best one) and its largest drift of a log-probability, in nats. "
        f"{shown_of(len(outputs), len(places), 'teacher-forced outputs').capitalize()}, those with something wrong "
        f"first. "
        f"{_told(limits)}",
        framed(320, [*_limits(limits), _points(rows, limits)]),
    )


def _outputs(run: MeasuredRun, places: Iterable[int], every: Any) -> Iterator[dict[str, Any]]:
    operations = {one.request.request_id: one for one in run.operations}
    for place in places:
        row = run.rows[place]
        found = compare_with_forcing(operations[row.request_id], every[row.request_id])
        if isinstance(found, tuple) and (point := _point(found)):
            yield {**point, "k": _KINDS[row.output], "r": clean(row.request_id, 60)}


def _controls(run: MeasuredRun, every: Any) -> Iterator[dict[str, Any]]:
    for forced in islice(own_controls(run.report.history, every), _MOST_CONTROLS):
        if point := _point((forced,)):
            yield {**point, "k": _CONTROL}


def _point(choices: Sequence[Forced]) -> dict[str, Any]:
    """Empty if the server reported no log-probabilities."""
    margin, drift = _largest(one.margin_error for one in choices), _largest(one.drift for one in choices)
    if margin is None or drift is None:
        return {}
    return {"x": rounded(max(margin, _LEAST), 3), "y": rounded(max(drift, _LEAST), 3)}


def _largest(arrays: Iterable[Any]) -> float | None:
    together = np.concatenate(list(arrays))
    known = together[np.isfinite(together)]
    return float(known.max()) if len(known) else None


def _told(limits: Any) -> str:
    pairs = [(limits.get(f"{far}regret_nats"), limits.get(f"{far}drift_nats")) for far in ("", "far_")]
    if None in pairs[0] or None in pairs[1]:
        return "The limits of noise are not known."
    (near_x, near_y), (far_x, far_y) = pairs
    return (
        f"Beyond the dashed lines ({figure_nats(near_x)} and {figure_nats(near_y)}) an output is doubtful, beyond the "
        f"solid ones ({figure_nats(far_x)} and {figure_nats(far_y)}) wrong; averages over an output's tokens have "
        "limits of their own, and suspected outputs and noisy prompts have others."
    )


def figure_nats(value: float) -> str:
    """A limit in nats."""
    return f"{value:.2g} nats" if value < 0.1 else f"{figure(value)} nats"


_LINES = {"doubtful beyond": [6, 4], "wrong beyond": [1, 0]}


def _limits(limits: Any) -> Iterator[Spec]:
    for far, name in zip(("", "far_"), _LINES, strict=True):
        for channel, limit in (("x", "regret_nats"), ("y", "drift_nats")):
            value = limits.get(far + limit)
            if value is not None:
                yield {
                    "data": values([{"v": value}]),
                    "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.8, "color": RED if far else ORANGE},
                    "encoding": {
                        channel: {"field": "v", "type": "quantitative"},
                        "strokeDash": {"datum": name, "type": "nominal", **dashed(_LINES)},
                    },
                }


def _points(rows: list[dict[str, Any]], limits: Any) -> Spec:
    there = {row["k"] for row in rows}
    return {
        "data": values(rows),
        "mark": {"type": "point", "filled": True, "size": 45, "opacity": 0.65},
        "encoding": {
            "x": _nats("x", "largest margin error (nats)", rows, limits, "regret_nats"),
            "y": _nats("y", "largest drift (nats)", rows, limits, "drift_nats"),
            "color": {"field": "k", "type": "nominal", **coloured({k: v for k, v in _COLOURS.items() if k in there})},
            "shape": {"field": "k", "type": "nominal", **shaped({k: v for k, v in _SHAPES.items() if k in there})},
            "tooltip": [
                tip("r", "request", "nominal"),
                tip("k", "what", "nominal"),
                tip("x", "largest margin error (nats)"),
                tip("y", "largest drift (nats)"),
            ],
        },
    }


def _nats(field: str, title: str, rows: list[dict[str, Any]], limits: Any, limit: str) -> Spec:
    shown = [row[field] for row in rows] + [one for far in ("", "far_") if (one := limits.get(far + limit))]
    scale, axis = logarithmic(min(shown) / 1.2, max(shown) * 1.4)
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}
