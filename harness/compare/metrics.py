"""What is compared between runs: each metric's key in result.json, its unit, and which direction is worse.

Metrics stand in families. The chance of a false alarm is held for each family as a whole (evidence.py), so that a
family with few members finds smaller changes: what most people gate on is in a small family of its own.
"""

from dataclasses import dataclass
from enum import StrEnum

from harness.compare.evidence import LEVEL


class Family(StrEnum):
    """Metrics that share one probability of a false alarm."""

    PRIMARY = "primary"
    """The slowest latencies, throughput and goodput. A real worsening of one of them makes the comparison fail."""
    FURTHER = "further"
    """Means and other percentiles."""
    RATES = "rates"
    """Shares of requests that failed, and of verified outputs that were wrong or doubtful."""
    COUNTERS = "counters"
    """The servers' counters for each completed request."""

    @property
    def level(self) -> float:
        """The family's probability of a false alarm: most of it is spent on what decides."""
        return LEVEL if self is Family.PRIMARY else LEVEL / 4


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a run."""

    name: str
    """As in a threshold: ``p99_ttft``."""
    family: Family
    unit: str = ""
    """``ms``, ``/s``, ``tokens``, ``bytes``; empty for shares."""
    higher_is_worse: bool | None = True
    """None: neither direction is worse, as for counters."""
    key: str = ""
    """In result.json; empty: it is computed (stored_run.py)."""

    @property
    def of_latency(self) -> bool:
        """Whether it is a time or a rate, which a client that did not keep up makes worthless."""
        return self.family in (Family.PRIMARY, Family.FURTHER)


def _latency(statistic: str, what: str, family: Family) -> Metric:
    return Metric(f"{statistic}_{what}", family, "ms", key=f"{statistic}_{what}_ms")


def _rate(name: str, family: Family) -> Metric:
    return Metric(name, family, "/s", higher_is_worse=False, key=name)


_SLOWEST = ("p99_ttft", "p99_tpot", "p99_e2el")
_WHAT = ("ttft", "tpot", "itl", "e2el")
_STATISTICS = ("mean", "p50", "p90", "p99")

LATENCIES = tuple(
    _latency(statistic, what, Family.PRIMARY if f"{statistic}_{what}" in _SLOWEST else Family.FURTHER)
    for what in _WHAT
    for statistic in _STATISTICS
)
THROUGHPUTS = (
    _rate("output_throughput", Family.PRIMARY),
    _rate("request_goodput", Family.PRIMARY),
    _rate("request_throughput", Family.FURTHER),
)
RATES = (
    Metric("failed", Family.RATES),
    Metric("mismatch", Family.RATES),
    Metric("doubtful", Family.RATES),
)


def counter(name: str) -> Metric:
    """The metric of a counter: ``decode.external_kv_transfer``, for each completed request."""
    return Metric(name, Family.COUNTERS, "bytes" if "bytes" in name else "tokens", higher_is_worse=None)
