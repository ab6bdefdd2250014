"""The table of a sweep, as text and as CSV, and its sentences."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields

from harness.reports.text import figure, plural
from harness.sweep.point import Point, in_order, knee

_COLUMNS = ("rate/s", "requests", "done/s", "good/s", "good", "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99", "verdict")


def table_lines(points: Sequence[Point], goal: float) -> Iterator[str]:
    """A line for each rate, with its latencies in milliseconds; the knee is marked."""
    best = knee(points, goal)
    rows = [_COLUMNS, *(_cells(point) for point in in_order(points))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for point, row in zip((None, *in_order(points)), rows, strict=True):
        mark = "  <- knee" if best is not None and point is best else ""
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + mark


def point_line(point: Point) -> str:
    """One rate in a line, for a log."""
    good = "" if point.share is None else f"{point.share:.0%} kept their objectives, "
    return (
        f"{point.rate:g} requests per second: {point.verdict}; {figure(point.throughput)} completed per second, {good}"
        f"TTFT p99 {figure(point.p99_ttft)} ms, TPOT p99 {figure(point.p99_tpot)} ms"
    )


def headline(points: Sequence[Point], objectives: Mapping[str, float], goal: float) -> str:
    """What the sweep found."""
    rates = plural(len(points), "rate")
    if not objectives:
        return f"{rates}; no objectives (--goodput), so no knee"
    limits = ", ".join(f"{name}:{ms:g}" for name, ms in objectives.items())
    best = knee(points, goal)
    if best is None:
        return f"{rates}; at none of them at least {goal:.0%} of the requests kept {limits}"
    if not any(point.rate > best.rate for point in points):
        more = "; no higher rate was tried" if best.client_kept_up else ""
    elif all(point.client_kept_up for point in points):
        more = ""
    else:
        more = "; at higher rates the client was too slow, so the deployment may keep more"
    return (
        f"{rates}; the knee is at {best.rate:g} requests per second, the highest rate at which at least {goal:.0%} of "
        f"the requests kept {limits}{more}"
    )


def csv_text(points: Sequence[Point]) -> str:
    """All figures, one line for each rate."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Point)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in in_order(points))
    return text.getvalue()


def _cells(point: Point) -> tuple[str, ...]:
    return (
        f"{point.rate:g}",
        f"{point.requests:,}",
        figure(point.throughput),
        figure(point.goodput),
        "-" if point.share is None else f"{point.share:.0%}",
        figure(point.p50_ttft),
        figure(point.p99_ttft),
        figure(point.p99_tpot),
        figure(point.p99_e2el),
        str(point.verdict),
    )
