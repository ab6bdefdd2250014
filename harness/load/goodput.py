"""Goodput: how many requests per second were answered well, in the sense of ``vllm bench serve``. Pure.

Rule 1: a request is *good* if it keeps each given objective: TTFT, TPOT and E2E latency, each at most so many
        milliseconds. A request of one token keeps every objective of TPOT.
Rule 2: only a request that ended OK can be good, and only if its output was not found wrong. A wrong answer in time is
        not good; vLLM's benchmark, which does not look at outputs, would count it.
Rule 3: latencies count from when a request was due. ``from_send`` counts them from its sending, as vLLM's benchmark
        does; a request that had to wait for a slot, or for a late client, then looks better than it was.
Rule 4: goodput is good requests per second of the duration that the throughput has, too.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.history import Operation, Outcome
from harness.load.latency import last_arrival, latency_report, time_per_output_token

METRICS = ("ttft", "tpot", "e2el")
"""The latencies that may have an objective, as vLLM names them."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that kept all objectives."""

    objectives: Mapping[str, float]
    """Milliseconds by metric."""
    requests: int
    """All requests, those that failed included."""
    good: int
    good_from_send: int
    wrong: int
    """Requests that were in time, and do not count because their outputs were found wrong."""
    duration: float
    """Seconds."""

    @property
    def per_second(self) -> float:
        """Good requests per second."""
        return self.good / self.duration if self.duration > 0 else 0.0

    @property
    def per_second_from_send(self) -> float:
        """The same with latencies that count from the sending."""
        return self.good_from_send / self.duration if self.duration > 0 else 0.0

    @property
    def share(self) -> float:
        """Good requests among all; 0 if there is none."""
        return self.good / self.requests if self.requests else 0.0

    def as_keys(self) -> dict[str, object]:
        """The keys of result.json."""
        return {
            "request_goodput": self.per_second,
            "request_goodput_from_send": self.per_second_from_send,
            "goodput_objectives_ms": dict(self.objectives),
            "good_requests": self.good,
            "good_requests_from_send": self.good_from_send,
            "in_time_but_wrong": self.wrong,
        }


def goodput(operations: Iterable[Operation], objectives: Mapping[str, float], wrong: Collection[str]) -> Goodput:
    """The goodput of these operations; ``wrong``: ids of requests whose outputs were found wrong."""
    operations = tuple(operations)
    due = {op.request.request_id for op in operations if _in_time(op, op.sent.intended_at, objectives)}
    sent = {op.request.request_id for op in operations if _in_time(op, op.sent.at, objectives)}
    return Goodput(
        objectives=objectives,
        requests=len(operations),
        good=len(due - set(wrong)),
        good_from_send=len(sent - set(wrong)),
        wrong=len(due & set(wrong)),
        duration=latency_report(operations).duration,
    )


def _in_time(operation: Operation, began: float, objectives: Mapping[str, float]) -> bool:
    if operation.outcome is not Outcome.OK:
        return False
    return all(seconds * 1000 <= objectives[metric] for metric, seconds in _latencies(operation, began, objectives))


def _latencies(operation: Operation, began: float, metrics: Collection[str]) -> Iterator[tuple[str, float]]:
    """The latencies of these metrics, in seconds. What is not streamed arrives at once, at its end."""
    ended = operation.ended
    if "ttft" in metrics:
        yield "ttft", (ended.token_times[0] if ended.token_times else ended.at) - began
    if "tpot" in metrics:
        yield "tpot", time_per_output_token(ended) or 0.0
    if "e2el" in metrics:
        yield "e2el", last_arrival(ended) - began
