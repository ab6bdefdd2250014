"""Latencies and throughput of operations: statistics, histograms that merge, confidence intervals, warm-up. Pure."""

from harness.load.latency.confidence import Interval
from harness.load.latency.detail import LatencyDetail, latency_detail
from harness.load.latency.histogram import Histogram
from harness.load.latency.statistics import (
    Distribution,
    Latencies,
    LatencyReport,
    inter_token_latencies,
    latencies,
    latency_report,
    time_per_output_token,
)

__all__ = [
    "Distribution",
    "Histogram",
    "Interval",
    "Latencies",
    "LatencyDetail",
    "LatencyReport",
    "inter_token_latencies",
    "latencies",
    "latency_detail",
    "latency_report",
    "time_per_output_token",
]
