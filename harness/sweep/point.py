"""What a deployment did at one rate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reports import Report
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One rate. Latencies are in milliseconds and count from when requests were due; None: not measured."""

    rate: float
    """Requests per second that were sent."""
    requests: int
    throughput: float
    """Requests per second that were completed."""
    output_throughput: float
    """Tokens per second."""
    goodput: float | None
    """Requests per second that kept the objectives; None: there are none."""
    share: float | None
    """The part of the requests that kept the objectives, 0 to 1; None: there are none."""
    p50_ttft: float | None
    p99_ttft: float | None
    p99_tpot: float | None
    p99_e2el: float | None
    verdict: Verdict
    directory: str
    """The run's directory, within that of the sweep."""
    client_kept_up: bool
    """Whether the client was fast enough for its measurements to be those of the deployment."""

    @classmethod
    def of(cls, rate: float, report: Report) -> "Point":
        """The point of a run."""
        result: dict[str, Any] = report.result
        good = report.goodput
        return cls(
            rate=rate,
            requests=result["completed"] + result["failed"],
            throughput=result["request_throughput"],
            output_throughput=result["output_throughput"],
            goodput=None if good is None else good.per_second,
            share=None if good is None else good.share,
            p50_ttft=result["p50_ttft_ms"],
            p99_ttft=result["p99_ttft_ms"],
            p99_tpot=result["p99_tpot_ms"],
            p99_e2el=result["p99_e2el_ms"],
            verdict=report.verdict,
            directory="" if report.path is None else report.path.name,
            client_kept_up=all(c.verdict is Verdict.VALID for c in report.checks if c.name == "client_health"),
        )

    def keeps(self, goal: float) -> bool:
        """Whether so large a share of the requests kept the objectives."""
        return self.share is not None and self.share >= goal


def knee(points: Iterable[Point], goal: float) -> Point | None:
    """The highest rate that keeps the objectives, as all lower ones do; None: there is none."""
    highest: Point | None = None
    for point in in_order(points):
        if not point.keeps(goal):
            break
        highest = point
    return highest


def in_order(points: Iterable[Point]) -> Sequence[Point]:
    """The points by rising rate."""
    return sorted(points, key=lambda point: point.rate)
