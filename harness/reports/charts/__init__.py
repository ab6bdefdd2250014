"""Charts of a run, as Vega-Lite specifications: data and how to draw them. Nothing here draws or writes."""

from harness.reports.charts.chart import Chart, Table
from harness.reports.charts.compose import charts_of

__all__ = ["Chart", "Table", "charts_of"]
