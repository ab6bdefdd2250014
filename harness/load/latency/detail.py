"""More about latencies than their statistics: histograms, confidence intervals, and the load without warm-up. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.history import Operation, Outcome
from harness.load.latency.confidence import Interval, intervals
from harness.load.latency.histogram import Histogram
from harness.load.latency.shares import Shares, latency_shares
from harness.load.latency.statistics import (
    LatencyReport,
    inter_token_latencies,
    last_arrival,
    latency_report,
    time_per_output_token,
)
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
    done = sorted((op for op in operations if op.outcome is Outcome.OK), key=lambda op: op.sent.intended_at)
    measured = {name: [of(op) for op in done] for name, of in _OF.items()}
    return LatencyDetail(
        {name: Histogram(one for group in groups for one in group) for name, groups in measured.items()},
        {name: intervals(groups) for name, groups in measured.items()},
        _steady(done, measured["ttft"] if all(measured["ttft"]) else measured["e2el"]),
        latency_shares(done),
    )


def _ttft(operation: Operation) -> list[float]:
    return [time - operation.sent.intended_at for time in operation.ended.token_times[:1]]


def _tpot(operation: Operation) -> list[float]:
    mean = time_per_output_token(operation.ended)
    return [] if mean is None else [mean]


def _e2e(operation: Operation) -> list[float]:
    return [last_arrival(operation.ended) - operation.sent.intended_at]


_OF: Mapping[str, Callable[[Operation], list[float]]] = {
    "ttft": _ttft,
    "tpot": _tpot,
    "itl": lambda operation: inter_token_latencies(operation.ended),
    "e2el": _e2e,
}


def _steady(done: Sequence[Operation], latencies: Sequence[Sequence[float]]) -> Steady | None:
    found = steady_state([one for group in latencies for one in group])
    if found is None:
        return None
    kept, last_due = done[found.first :], done[-1].sent.intended_at
    seconds = last_due - kept[0].sent.intended_at
    if seconds <= 0:
        return None
    ended = sum(kept[0].sent.intended_at <= op.ended.at <= last_due for op in done)
    after = kept[0].sent.intended_at - done[0].sent.intended_at
    return Steady(found.first, after, latency_report(kept), ended / seconds)


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
