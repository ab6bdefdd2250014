"""All charts of a run, in the order in which a reader needs them. A chart without data is left out."""

from collections.abc import Callable, Iterable, Sequence

from harness.reports.charts.chart import Chart
from harness.reports.charts.expected import counter_differences, token_sources
from harness.reports.charts.in_flight import in_flight
from harness.reports.charts.latency_over_time import latency_by_pair, latency_over_time
from harness.reports.charts.measured_run import MeasuredRun, measured_run
from harness.reports.charts.percentiles import latency_distribution, latency_tail
from harness.reports.charts.servers import servers_over_time
from harness.reports.charts.throughput import requests_over_time, tokens_over_time
from harness.reports.charts.timeline import timeline
from harness.reports.charts.verified import verified_outputs
from harness.reports.charts.wrong import wrong_outputs
from harness.reports.judged import Judged
from harness.reports.requests import RequestRow

_CHARTS: tuple[Callable[[MeasuredRun], Iterable[Chart]], ...] = (
    in_flight,
    timeline,
    wrong_outputs,
    verified_outputs,
    counter_differences,
    token_sources,
    latency_distribution,
    latency_tail,
    latency_by_pair,
    latency_over_time,
    requests_over_time,
    tokens_over_time,
    servers_over_time,
)


def charts_of(report: Judged, rows: Sequence[RequestRow] | None = None) -> tuple[Chart, ...]:
    """The charts of a run. ``rows``: those of :func:`request_rows`, if they were already made."""
    run = measured_run(report, rows)
    return tuple(chart for make in _CHARTS for chart in make(run))
