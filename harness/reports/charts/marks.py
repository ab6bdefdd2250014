"""What lies behind charts over time: faults as shaded bands, with their names. Pure."""

from collections.abc import Iterable, Iterator
from itertools import count

from harness.reports.charts.measured_run import Band, MeasuredRun
from harness.reports.charts.sampling import sample
from harness.reports.charts.style import GREY, PURPLE, Spec, at_second, time_axis, values

_LINES = 3
"""Lines on which names of faults stand, so that those of faults close to each other do not overlap."""


def with_faults(run: MeasuredRun, layers: Iterable[Spec]) -> list[Spec]:
    """The layers of a chart over time between the shades of faults, below, and their names, above."""
    return [*_shades(run), *layers, *_names(run)]


def _shades(run: MeasuredRun) -> Iterator[Spec]:
    if not run.bands:
        return
    tooltip = [
        {"field": "name", "title": "fault"},
        {"field": "begin", "title": "from (s)"},
        {"field": "end", "title": "until (s)"},
    ]
    yield {
        "data": values([_row(band) for band in run.bands]),
        "mark": {"type": "rect", "color": GREY, "opacity": 0.22, "stroke": GREY, "strokeDash": [4, 3]},
        "encoding": {"x": time_axis("begin", run.end), "x2": {"field": "end"}, "tooltip": tooltip},
    }


def _row(band: Band) -> Spec:
    return {"name": band.name, "begin": at_second(band.begin), "end": at_second(band.end)}


_NAME: Spec = {"type": "text", "align": "left", "baseline": "top", "dx": 3, "limit": 160}


def _names(run: MeasuredRun) -> Iterator[Spec]:
    for line, bands in zip(count(), (run.bands[line::_LINES] for line in range(_LINES)), strict=False):
        if bands:
            yield {
                "data": values([_row(band) for band in bands]),
                "mark": _NAME | {"dy": 3 + 12 * line},
                "encoding": {
                    "x": time_axis("begin", run.end),
                    "y": {"value": 0},
                    "text": {"field": "name", "type": "nominal"},
                },
            }


def phase_layers(run: MeasuredRun) -> Iterator[Spec]:
    """Dotted lines where the phases of the load begin, if there are several; with their names, if they are few."""
    if not 1 < len(run.phases) <= _MOST_PHASES:
        return
    rows = [{"t": at_second(one.at), "name": one.name} for one in run.phases]
    yield {
        "data": values(rows),
        "mark": {"type": "rule", "strokeDash": [1, 3], "color": GREY},
        "encoding": {"x": time_axis("t", run.end), "tooltip": {"field": "name", "title": "phase"}},
    }
    for number in range(_LINES if len(rows) <= _MOST_NAMED else 0):
        yield {
            "data": values(rows[number::_LINES]),
            "mark": _NAME | {"baseline": "bottom", "dy": -12 - 12 * number},
            "encoding": {
                "x": time_axis("t", run.end),
                "y": {"value": "height"},
                "text": {"field": "name", "type": "nominal"},
            },
        }


def reading_ticks(run: MeasuredRun) -> Iterator[Spec]:
    """Ticks at the lower edge where servers' metrics were read; those of readings that failed are longer."""
    places = sample([one.name == "" for one in run.readings], _MOST_TICKS).tolist()
    for failed in (False, True):
        rows = [{"t": at_second(one.at), "w": one.name} for one in map(run.readings.__getitem__, places)]
        rows = [row for row in rows if bool(row["w"]) is failed]
        if rows:
            tooltip = {"field": "w", "title": "metrics could not be read"} if failed else {"value": "metrics were read"}
            yield {
                "data": values(rows),
                "mark": {"type": "tick", "orient": "vertical", "color": GREY, "yOffset": -4} | _TICKS[failed],
                "encoding": {"x": time_axis("t", run.end), "y": {"value": "height"}, "tooltip": tooltip},
            }


_MOST_PHASES, _MOST_NAMED, _MOST_TICKS = 60, 9, 240
_TICKS: dict[bool, Spec] = {False: {"size": 7, "thickness": 1}, True: {"size": 16, "thickness": 2, "color": PURPLE}}


def faults_told(run: MeasuredRun) -> str:
    """A sentence for descriptions; empty without faults."""
    if not run.bands:
        return ""
    told = ", ".join(f"{band.name} from {band.begin:.1f} to {band.end:.1f} s" for band in run.bands[:8])
    more = f" and {len(run.bands) - 8} more" if len(run.bands) > 8 else ""
    return f" Faults are shaded until the deployment had recovered: {told}{more}."
