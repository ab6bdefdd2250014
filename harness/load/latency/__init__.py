"""Latencies and throughput of operations: statistics, histograms that merge, confidence intervals, warm-up. Pure."""

from harness.load.latency.arrivals import inter_token_latencies, last_arrival, time_per_output_token
from harness.load.latency.confidence import Interval
from harness.load.latency.detail import LatencyDetail, latency_detail
from harness.load.latency.histogram import Histogram
from harness.load.latency.statistics import (
    Distribution,
    Latencies,
    LatencyReport,
    latencies,
    latency_report,
)

__all__ = [
    "Distribution",
    "Histogram",
    "Interval",
    "Latencies",
    "LatencyDetail",
    "LatencyReport",
    "inter_token_latencies",
    "last_arrival",
    "latencies",
    "latency_detail",
    "latency_report",
    "time_per_output_token",
]
