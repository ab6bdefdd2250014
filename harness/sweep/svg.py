"""A sweep as a picture: an SVG file that needs nothing else to be shown.

Above: requests per second, completed and good, against the rate at which they were sent. The dashed line is where all
that is sent is completed at once. Below: TTFT against the rate.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from harness.reports.text import figure
from harness.sweep.point import Point, in_order, knee

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 300, 70, 170, 40, 45
_BLUE, _GREEN, _RED, _GREY = "#1f5fa8", "#2a8a4a", "#b03030", "#888"
_TICKS = 5
Value = Callable[[Point], float | None]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One diagram; ``y``: its upper edge in the picture, in pixels."""

    title: str
    y: int
    most_x: float
    most_y: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a value, in pixels."""
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / self.most_x
        return across, self.y + _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(y / self.most_y, 1.0)

    def frame(self) -> Iterator[str]:
        """Axes, their numbers, and the title."""
        yield _text(_LEFT, self.y + 22, self.title, weight="bold")
        for tick in range(_TICKS + 1):
            part = tick / _TICKS
            x, low = self.at(part * self.most_x, 0)
            left, y = self.at(0, part * self.most_y)
            right, _ = self.at(self.most_x, 0)
            yield _line(left, y, right, y, "#ddd")
            yield _text(left - 6, y + 4, figure(part * self.most_y), anchor="end")
            yield _text(x, low + 18, figure(part * self.most_x), anchor="middle")
        yield _text((_LEFT + _WIDTH - _RIGHT) / 2, self.y + _HEIGHT - 8, "requests sent per second", anchor="middle")

    def curve(self, points: Sequence[Point], value: Value, colour: str, name: str, row: int) -> Iterator[str]:
        """One value against the rate, and its place in the legend."""
        found = [(point.rate, y) for point in points if (y := value(point)) is not None]
        places = [self.at(x, y) for x, y in found]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
        yield _text(_WIDTH - _RIGHT + 16, self.y + _TOP + 14 + 18 * row, name, colour=colour)


def svg(points: Sequence[Point], objectives: Mapping[str, float], goal: float, title: str) -> str:
    """The picture of a sweep with at least one rate."""
    points = in_order(points)
    best = knee(points, goal)
    parts = [*_requests(points, best), *_ttft(points, best, objectives.get("ttft"))]
    lines = title.split("; ")
    size = f'width="{_WIDTH}" height="{2 * _HEIGHT + 18 * len(lines) + 12}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            *(_text(20, 2 * _HEIGHT + 18 * number, line) for number, line in enumerate(lines, 1)),
            "</svg>\n",
        ]
    )


def _requests(points: Sequence[Point], best: Point | None) -> Iterator[str]:
    most = points[-1].rate
    panel = _Panel("requests per second", 0, _round(most), _round(max(most, *(point.throughput for point in points))))
    yield from panel.frame()
    yield _line(*panel.at(0, 0), *panel.at(most, most), _GREY, dashed=True)
    yield from panel.curve(points, lambda point: point.throughput, _BLUE, "completed", 0)
    if any(point.goodput is not None for point in points):
        yield from panel.curve(points, lambda point: point.goodput, _GREEN, "kept objectives", 1)
    yield from _knee(panel, best)


def _ttft(points: Sequence[Point], best: Point | None, limit: float | None) -> Iterator[str]:
    highest = max((point.p99_ttft or 0.0 for point in points), default=0.0)
    # Far beyond the knee latencies grow without end, and would make all others look like 0.
    top = min(highest, 4 * limit) if limit else highest
    title = "time to first token, ms" + (" (longer ones at the upper edge)" if top < highest else "")
    panel = _Panel(title, _HEIGHT, _round(points[-1].rate), _round(max(top, 1e-3)))
    yield from panel.frame()
    yield from panel.curve(points, lambda point: point.p50_ttft, _BLUE, "median", 0)
    yield from panel.curve(points, lambda point: point.p99_ttft, _RED, "99th percentile", 1)
    if limit is not None and limit <= panel.most_y:
        yield _line(*panel.at(0, limit), *panel.at(points[-1].rate, limit), _GREY, dashed=True)
        yield _text(_WIDTH - _RIGHT + 16, panel.at(0, limit)[1] + 4, f"objective: {limit:g} ms", colour=_GREY)
    yield from _knee(panel, best)


def _round(most: float) -> float:
    """The end of an axis: at least ``most``, and five ticks of a round number."""
    step = most / _TICKS
    size = 10.0 ** math.floor(math.log10(step))
    return _TICKS * size * next(part for part in (1, 2, 2.5, 4, 5, 8, 10, 20) if part * size >= step)


def _knee(panel: _Panel, best: Point | None) -> Iterator[str]:
    if best is not None:
        x, low = panel.at(best.rate, 0)
        yield _line(x, low, x, panel.y + _TOP, _GREEN, dashed=True)
        yield _text(x + 4, panel.y + _TOP + 10, f"knee: {best.rate:g}", colour=_GREEN)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:  # noqa: PLR0913
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _text(  # noqa: PLR0913 - what a text in a picture has
    x: float, y: float, content: str, *, anchor: str = "start", colour: str = "#222", weight: str = "normal"
) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'
