"""Compares sets of stored runs: outputs, counters, latencies, throughput. Pure; statistics come from scipy."""

from harness.compare.changes import Change
from harness.compare.comparison import Comparison, Conclusion, NotComparableError, compare
from harness.compare.evidence import Answer, Evidence, Sides
from harness.compare.metrics import Family, Metric
from harness.compare.stored_run import StoredRun
from harness.compare.thresholds import Kept, Limit, Threshold, parse_thresholds

__all__ = [
    "Answer",
    "Change",
    "Comparison",
    "Conclusion",
    "Evidence",
    "Family",
    "Kept",
    "Limit",
    "Metric",
    "NotComparableError",
    "Sides",
    "StoredRun",
    "Threshold",
    "compare",
    "parse_thresholds",
]
