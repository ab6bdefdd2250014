"""Wrong and doubtful outputs: from which servers, where in the answer and in the prompt, and when. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from harness.reports.charts.chart import Chart, Table
from harness.reports.charts.grid import Grid
from harness.reports.charts.marks import faults_told, with_faults
from harness.reports.charts.measured_run import MeasuredRun
from harness.reports.charts.style import ORANGE, RED, Spec, at_second, coloured, framed, rounded, time_axis, tip, values
from harness.reports.requests import OutputStatus, RequestRow
from harness.reports.text import clean, plural

_WRONG, _DOUBTFUL = "wrong", "doubtful"
_COLOURS = {_WRONG: RED, _DOUBTFUL: ORANGE}
_VERIFIED = {OutputStatus.RIGHT, OutputStatus.TIE, OutputStatus.DOUBTFUL, OutputStatus.WRONG}
_MOST = 60
"""Bars of a chart."""
_MOST_SERVERS = 12
"""Servers of a role in the table of pairs: those with most wrong outputs."""


def wrong_outputs(run: MeasuredRun) -> Iterator[Chart]:
    """Charts of the outputs that are not right; none if all are."""
    wrong = [row for row in run.rows if row.output is OutputStatus.WRONG]
    if not wrong and not any(row.output is OutputStatus.DOUBTFUL for row in run.rows):
        return
    yield from _over_time(run)
    yield from _by_pair(run.rows)
    tokens = [row.token for row in wrong if row.token is not None]
    if tokens:
        title = "first wrong output token (0: the first of the answer)"
        yield _histogram("wrong-by-token", "Wrong outputs by position", title, tokens, len(wrong))
    blocks = [row.block for row in wrong if row.block is not None]
    if blocks:
        title = "first wrong KV block of the prompt (1: the first)"
        yield _histogram("wrong-by-block", "Wrong outputs by KV block", title, blocks, len(wrong))


def _over_time(run: MeasuredRun) -> Iterator[Chart]:
    grid = Grid.over(run.end, _MOST)
    kinds = ((_WRONG, OutputStatus.WRONG), (_DOUBTFUL, OutputStatus.DOUBTFUL))
    counted = {name: grid.count(run.sent[run.with_output(status)]) for name, status in kinds}
    rows = [
        {"t": at_second(t), "u": at_second(t + grid.step), "n": n, "k": name}
        for name, counts in counted.items()
        for t, n in zip(grid.begins.tolist(), counts.tolist(), strict=True)
        if n
    ]
    many = ", ".join(f"{int(counts.sum()):,} {name}" for name, counts in counted.items())
    yield Chart(
        "wrong-over-time",
        "Wrong and doubtful outputs over time",
        f"Outputs that are not right ({many}) by when their requests were sent, in slices of {grid.step:g} s. Only "
        f"verified outputs can be found wrong.{faults_told(run)}",
        framed(150, with_faults(run, [_bars_over_time(run, rows, int(np.sum(list(counted.values()), axis=0).max()))])),
    )


def _bars_over_time(run: MeasuredRun, rows: list[dict[str, Any]], most: int) -> Spec:
    there = {row["k"] for row in rows}
    return {
        "data": values(rows),
        "mark": {"type": "bar"},
        "encoding": {
            "x": time_axis("t", run.end, bin="binned"),
            "x2": {"field": "u"},
            "y": _counted("outputs", most),
            "color": {
                "field": "k",
                "type": "nominal",
                **coloured({name: colour for name, colour in _COLOURS.items() if name in there}),
            },
            "order": {"field": "k", "sort": "descending"},
            # The lighter one is doubtful, for those who do not see its colour.
            "opacity": {
                "field": "k",
                "type": "ordinal",
                "scale": {"domain": list(_COLOURS), "range": [1, 0.6]},
                "legend": None,
            },
            "tooltip": [tip("k", "outputs", "nominal"), tip("n", "number", format=",d"), tip("t", "sent from (s)")],
        },
    }


def _counted(title: str, most: int) -> Spec:
    """An axis of small whole numbers."""
    axis = {"tickCount": min(4, most), "format": ",d"}
    return {"field": "n", "type": "quantitative", "title": title, "axis": axis}


def _histogram(name: str, title: str, axis: str, places: Sequence[int], every: int) -> Chart:
    width = max(1, -(-(max(places) + 1) // _MOST))
    counts: dict[int, int] = {}
    for place in places:
        counts[place // width * width] = counts.get(place // width * width, 0) + 1
    rows = [{"a": begin - 0.5, "b": begin + width - 0.5, "n": counts[begin]} for begin in sorted(counts)]
    most = max(sorted(counts), key=counts.__getitem__)
    where = f"{most}" if width == 1 else f"{most} to {most + width - 1}"
    known = "" if len(places) == every else f" Of the other {every - len(places):,} it is not known."
    spec: Spec = {
        "data": values(rows),
        "mark": {"type": "bar", "color": RED},
        "encoding": {
            "x": {
                "field": "a",
                "bin": "binned",
                "type": "quantitative",
                "title": axis,
                "scale": {"domain": [-0.5, max(*places, 7) + 0.5], "nice": False},
                "axis": {"tickMinStep": 1, "format": ",d", "tickCount": 8, "grid": False},
            },
            "x2": {"field": "b"},
            "y": _counted("wrong outputs", counts[most]),
            "tooltip": [tip("n", "outputs", format=",d")],
        },
    }
    told = f"{plural(len(places), 'wrong output')} by the {axis}: most often {where}, {counts[most]:,} times.{known}"
    return Chart(name, title, told, framed(150, [spec]))


def _by_pair(rows: Iterable[RequestRow]) -> Iterator[Chart]:
    pairs: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row.output in _VERIFIED and row.prefill_server and row.decode_server:
            found = pairs.setdefault((row.prefill_server, row.decode_server), [0, 0, 0])
            found[0] += 1
            found[1] += row.output is OutputStatus.WRONG
            found[2] += row.output is OutputStatus.DOUBTFUL
    if len(pairs) < 2:
        return
    worst = sorted(pairs, key=lambda pair: (-pairs[pair][1], -pairs[pair][2], pair))
    prefills = sorted(list(dict.fromkeys(pair[0] for pair in worst))[:_MOST_SERVERS])
    decodes = sorted(list(dict.fromkeys(pair[1] for pair in worst))[:_MOST_SERVERS])
    cells = [_cell(pair, pairs[pair]) for pair in worst if pair[0] in prefills and pair[1] in decodes]
    first = worst[0]
    yield Chart(
        "wrong-by-pair",
        "Wrong outputs by pair of servers",
        f"Wrong of verified outputs of each prefill and decode server. Most are of {clean(first[0], 60)} and "
        f"{clean(first[1], 60)}: {pairs[first][1]:,} of {pairs[first][0]:,}.",
        framed(44 * len(prefills) + 10, _cells(cells, len(decodes))),
        Table(
            ("prefill server", "decode server", "verified", "wrong", "doubtful"),
            [(clean(p, 60), clean(d, 60), *(f"{n:,}" for n in pairs[p, d])) for p, d in worst[: _MOST_SERVERS**2]],
        ),
    )


def _cell(pair: tuple[str, str], counted: Sequence[int]) -> dict[str, Any]:
    verified, wrong, doubtful = counted
    return {
        "p": clean(pair[0], 40),
        "d": clean(pair[1], 40),
        "w": wrong,
        "n": verified,
        "q": doubtful,
        "x": rounded(wrong / verified),
    }


def _cells(cells: list[dict[str, Any]], columns: int) -> list[Spec]:
    x = {"field": "d", "type": "nominal", "title": "decode server", "axis": {"labelAngle": 0 if columns < 5 else -40}}
    y = {"field": "p", "type": "nominal", "title": "prefill server", "axis": {"labelLimit": 120}}
    most = max(cell["x"] for cell in cells) or 1
    return [
        {
            "data": {"name": "pairs", **values(cells)},
            "mark": {"type": "rect", "color": RED, "stroke": RED},
            "encoding": {
                "x": x,
                "y": y,
                # By opacity, so that few are near the page's own colour, be it light or dark.
                "fillOpacity": {
                    "field": "x",
                    "type": "quantitative",
                    "scale": {"domain": [0, most], "range": [0.02, 0.7]},
                    "legend": None,
                },
                "tooltip": [
                    tip("p", "prefill server", "nominal"),
                    tip("d", "decode server", "nominal"),
                    tip("n", "verified", format=",d"),
                    tip("w", "wrong", format=",d"),
                    tip("q", "doubtful", format=",d"),
                    tip("x", "share wrong", format=".2%"),
                ],
            },
        },
        {
            "data": {"name": "pairs"},
            "transform": [{"calculate": "format(datum.w, ',d') + ' of ' + format(datum.n, ',d')", "as": "t"}],
            "mark": {"type": "text"},
            "encoding": {"x": x, "y": y, "text": {"field": "t", "type": "nominal"}},
        },
    ]
