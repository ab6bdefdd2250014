"""Runs at several rates: which rate is tried next, what each rate came to, and how that is shown. Pure.

The *knee* is the highest rate at which enough requests keep their objectives, as they do at all lower rates tried.
"""

from harness.sweep.chart import chart_lines
from harness.sweep.point import Point, knee
from harness.sweep.search import Step, search
from harness.sweep.svg import svg
from harness.sweep.table import csv_text, headline, point_line, table_lines

__all__ = [
    "Point",
    "Step",
    "chart_lines",
    "csv_text",
    "headline",
    "knee",
    "point_line",
    "search",
    "svg",
    "table_lines",
]
