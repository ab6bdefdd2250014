"""A sweep as bars of text: one for each rate."""

from collections.abc import Iterator, Sequence

from harness.reports.text import figure
from harness.sweep.point import Point, in_order

_LABELS = 22
"""Characters beside the bars."""


def chart_lines(points: Sequence[Point], width: int) -> Iterator[str]:
    """Bars at most ``width`` characters wide with their labels.

    Only ASCII, since the terminal's encoding may have nothing else.
    """
    most = max((max(point.rate, point.throughput) for point in points), default=1.0)
    room = max(10, width - _LABELS)
    good = any(point.goodput is not None for point in points)
    yield "requests per second:  " + ("# kept the objectives, - did not, " if good else "# completed, ") + "| were sent"
    for point in in_order(points):
        done = round(point.throughput / most * room)
        kept = done if point.goodput is None else round(point.goodput / most * room)
        bar = "#" * kept + "-" * (done - kept)
        sent = round(point.rate / most * room)
        shown = bar if sent < done else f"{bar:<{sent}}|"
        yield f"{point.rate:>9g} {shown:<{room + 1}} {figure(point.throughput)}"
