"""More about latencies than their statistics: histograms, confidence intervals, and the load without warm-up. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.history import Operation, Outcome
from harness.load.latency.arrivals import Arrivals, Seconds, arrivals_of
from harness.load.latency.confidence import Interval, intervals
from harness.load.latency.histogram import Histogram
from harness.load.latency.shares import Shares, latency_shares
from harness.load.latency.statistics import LatencyReport, report_of
from harness.load.latency.steady import steady_state


@dataclass(frozen=True, slots=True)
class Steady:
    """The load from the end of warm-up on (steady.py)."""

    first: int
    """Requests of the warm-up."""
    after: float
    """Seconds of the warm-up, from when the load's first request was due."""
    latency: LatencyReport
    """Of the requests behind the warm-up. Its rates include the end of the load, with fewer and fewer requests."""
    request_throughput: float
    """Answers per second from the end of warm-up until the last request was due."""


@dataclass(frozen=True, slots=True)
class LatencyDetail:
    """Each mapping has the keys ``ttft``, ``tpot``, ``itl`` and ``e2el``; times count from the due time."""

    histograms: Mapping[str, Histogram]
    intervals: Mapping[str, Mapping[str, Interval]]
    steady: Steady | None
    shares: Shares | None

    def as_keys(self) -> dict[str, Any]:
        """Keys of result.json: histograms as text (histogram.py), intervals in milliseconds."""
        return {
            "latency_histograms_us": {name: one.encoded() for name, one in self.histograms.items()},
            "latency_intervals_ms": {
                name: {statistic: [one.low, one.high] for statistic, one in found.items()}
                for name, found in self.intervals.items()
            },
            "steady_state": None if self.steady is None else _steady_keys(self.steady),
            "latency_shares_ms": None if self.shares is None else asdict(self.shares),
        }


def latency_detail(operations: Iterable[Operation]) -> LatencyDetail:
    """The detail of these operations, of which those are measured that ended OK."""
    operations = tuple(operations)
    arrived = arrivals_of(operations)
    by_due = np.argsort(arrived.due, kind="stable")
    done = [operation for operation in operations if operation.outcome is Outcome.OK]
    done, arrived = [done[place] for place in by_due], arrived.at(by_due)
    e2e, streamed = arrived.last - arrived.due, arrived.streamed
    ttft = (arrived.first - arrived.due)[streamed]
    every = {"ttft": ttft, "tpot": arrived.tpot, "itl": arrived.itl, "e2el": e2e}
    return LatencyDetail(
        {name: Histogram(seconds) for name, seconds in every.items()},
        # Of each request one number, or none; but of inter-token latencies several.
        {name: intervals(arrived.itls() if name == "itl" else [*each[:, np.newaxis]]) for name, each in every.items()},
        _steady(done, arrived, ttft if streamed.all() else e2e),
        latency_shares(done),
    )


def _steady(done: Sequence[Operation], arrived: Arrivals, latencies: Seconds) -> Steady | None:
    found = steady_state(latencies)
    if found is None:
        return None
    kept, last_due = done[found.first :], done[-1].sent.intended_at
    seconds = last_due - kept[0].sent.intended_at
    if seconds <= 0:
        return None
    ended = sum(kept[0].sent.intended_at <= op.ended.at <= last_due for op in done)
    after = kept[0].sent.intended_at - done[0].sent.intended_at
    report = report_of(kept, arrived.at(np.arange(found.first, len(done))))
    return Steady(found.first, after, report, ended / seconds)


def _steady_keys(steady: Steady) -> dict[str, Any]:
    measured = steady.latency
    parts = {"ttft": measured.ttft, "tpot": measured.tpot, "itl": measured.itl, "e2el": measured.e2el}
    return {
        "test": "MSER-5",
        "warmup_requests": steady.first,
        "warmup_seconds": steady.after,
        "requests": measured.completed,
        "request_throughput": steady.request_throughput,
        **{f"{name}_ms": None if part is None else asdict(part) for name, part in parts.items()},
    }
