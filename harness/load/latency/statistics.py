"""Latencies and throughput of operations, under the keys of a ``vllm bench serve`` result. Pure.

Rule 1: times count from when a request was *due*; the times from its sending have the suffix ``_from_send``. Times
        from the sending alone would hide the delays of a late client.
Rule 2: only OK operations are measured. ``failed`` counts all others, FAIL and INFO, but for clients that left as
        planned.
Rule 3: n tokens have n - 1 inter-token latencies, and these sum to the time from first to last token, however
        the server grouped tokens into chunks. A chunk of k tokens that arrives d after the previous chunk gives k
        latencies of d/k (as in SGLang's benchmark; vLLM's counts one of d, which is the latency of a chunk and
        grows with speculative decoding although tokens arrive faster). The first chunk's tokens after the first
        count 0.
Rule 4: TPOT is (last - first) / (n - 1) of one operation; an operation of one token has none.
Rule 5: E2E ends at the last token, or at the whole body if nothing was streamed (such an operation has no TTFT, ITL
        or TPOT).
Rule 6: a metric without any measurement is None, never 0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from harness.history import Ending, Operation, Outcome
from harness.load.latency.arrivals import Arrivals, Seconds, arrivals_of
from harness.load.latency.peaks import peaks


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution in milliseconds; ``std`` is the population's, percentiles are interpolated linearly."""

    mean: float
    median: float
    std: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """Latencies and rates. Rates are per second of ``duration`` (seconds from the first due time to the last end)."""

    duration: float
    completed: int
    failed: int
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    max_output_tokens_per_s: int
    """Of the busiest second (peaks.py)."""
    max_concurrent_requests: int
    """Likewise."""
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    e2el: Distribution | None
    ttft_from_send: Distribution | None
    e2el_from_send: Distribution | None

    def as_keys(self) -> dict[str, float | None]:
        """Flat keys of ``vllm bench serve`` (``p99_ttft_ms``), and further ones (``p99_ttft_from_send_ms``)."""
        keys: dict[str, float | None] = {name: getattr(self, name) for name in _COUNTS}
        for metric in _METRICS:
            summary = getattr(self, metric)
            values = dict.fromkeys(_STATISTICS) if summary is None else asdict(summary)
            keys |= {f"{statistic}_{metric}_ms": value for statistic, value in values.items()}
        return keys


_STATISTICS = ("mean", "median", "std", "p50", "p90", "p99")
_METRICS = ("ttft", "tpot", "itl", "e2el", "ttft_from_send", "e2el_from_send")
_COUNTS = tuple(name for name in LatencyReport.__dataclass_fields__ if name not in _METRICS)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of the operations that ended OK, in seconds, in the order of sending."""

    ttft: Seconds
    """Shape (streamed operations,): from a request's due time to its first token."""
    itl: Seconds
    """Shape (tokens - operations, of the streamed ones): between consecutive tokens, operation after operation."""
    tpot: Seconds
    """Shape (streamed operations of two tokens or more,): mean time per output token after the first."""
    e2e: Seconds
    """Shape (OK operations,): from a request's due time to the end of its answer."""


def latencies(operations: Iterable[Operation]) -> Latencies:
    """The latencies of operations, by the rules above."""
    return _latencies(arrivals_of(tuple(operations)))


def _latencies(arrived: Arrivals) -> Latencies:
    return Latencies(
        ttft=(arrived.first - arrived.due)[arrived.streamed],
        itl=arrived.itl,
        tpot=arrived.tpot,
        e2e=arrived.last - arrived.due,
    )


def latency_report(operations: Iterable[Operation]) -> LatencyReport:
    """The report of these operations, for example of one phase or of all phases together."""
    operations = tuple(operations)
    return report_of(operations, arrivals_of(operations))


def report_of(operations: Sequence[Operation], arrived: Arrivals) -> LatencyReport:
    """The report of operations; ``arrived``: of those of them that ended OK."""
    done = [operation for operation in operations if operation.outcome is Outcome.OK]
    duration = _duration(operations)
    tokens_in, tokens_out = sum(map(_input_tokens, done)), sum(map(_output_tokens, done))
    per_second = _rate(duration)
    measured, busiest = _latencies(arrived), peaks(arrived)
    return LatencyReport(
        duration=duration,
        completed=len(done),
        failed=sum(one.outcome is not Outcome.OK and one.ended.ending is not Ending.LEFT for one in operations),
        total_input_tokens=tokens_in,
        total_output_tokens=tokens_out,
        request_throughput=per_second(len(done)),
        output_throughput=per_second(tokens_out),
        total_token_throughput=per_second(tokens_in + tokens_out),
        max_output_tokens_per_s=busiest.tokens,
        max_concurrent_requests=busiest.requests,
        ttft=_distribution(measured.ttft),
        tpot=_distribution(measured.tpot),
        itl=_distribution(measured.itl),
        e2el=_distribution(measured.e2e),
        ttft_from_send=_distribution((arrived.first - arrived.sent)[arrived.streamed]),
        e2el_from_send=_distribution(arrived.last - arrived.sent),
    )


def _duration(operations: Sequence[Operation]) -> float:
    if not operations:
        return 0.0
    return max(op.ended.at for op in operations) - min(op.sent.intended_at for op in operations)


def _rate(duration: float) -> Callable[[int], float]:
    return lambda count: count / duration if duration > 0 else 0.0


def _input_tokens(operation: Operation) -> int:
    """The server's count, else the number of ids it returned; 0 if it reported neither."""
    ended = operation.ended
    return ended.usage.prompt_tokens if ended.usage else len(ended.prompt_token_ids or ())


def _output_tokens(operation: Operation) -> int:
    return operation.ended.output_tokens


def _distribution(seconds: Seconds) -> Distribution | None:
    if not len(seconds):
        return None
    ms = seconds * 1000.0
    p50, p90, p99 = np.percentile(ms, (50, 90, 99)).tolist()
    return Distribution(float(ms.mean()), float(np.median(ms)), float(ms.std()), p50, p90, p99)
