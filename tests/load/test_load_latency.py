"""Latencies, compared with figures calculated by hand and with invariants."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history import Choice, Ended, Operation, Outcome, Sent, Usage
from harness.load.latency import inter_token_latencies, latency_report, time_per_output_token
from harness.scenario import Request

# The keys of `vllm bench serve --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99`.
VLLM_KEYS = {
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "output_throughput",
    "total_token_throughput",
    "max_output_tokens_per_s",
    "max_concurrent_requests",
    *(
        f"{statistic}_{metric}_ms"
        for statistic in ("mean", "median", "std", "p50", "p90", "p99")
        for metric in ("ttft", "tpot", "itl", "e2el")
    ),
}


def operation(
    due: float,
    sent: float,
    chunks: list[tuple[float, int]],
    end: float,
    *,
    outcome: Outcome = Outcome.OK,
    prompt: int = 10,
    streamed: bool = True,
) -> Operation:
    """``chunks``: (arrival, tokens)."""
    tokens = sum(count for _, count in chunks)
    ended = Ended(
        end,
        "r",
        outcome,
        choices=(Choice(tuple(range(tokens)), finish_reason="length"),),
        usage=Usage(prompt, tokens),
        token_times=tuple(at for at, count in chunks for _ in range(count)) if streamed else (),
        tokens_per_chunk=tuple(count for _, count in chunks) if streamed else (),
    )
    return Operation(Sent(sent, Request("r", ()), "s", "p", due), ended)


def test_one_operation_by_hand() -> None:
    report = latency_report([operation(1.0, 1.5, [(2.0, 1), (2.5, 1), (3.5, 2)], 4.0)])
    keys = report.as_keys()
    assert keys["mean_ttft_ms"] == pytest.approx(1000)
    assert keys["mean_ttft_from_send_ms"] == pytest.approx(500)
    assert keys["mean_e2el_ms"] == pytest.approx(2500)
    assert keys["mean_e2el_from_send_ms"] == pytest.approx(2000)
    # 1.5 s for the three tokens after the first.
    assert keys["mean_tpot_ms"] == pytest.approx(500)
    # 500 ms for one token, then 1000 ms for two.
    assert keys["median_itl_ms"] == pytest.approx(500)
    assert keys["std_itl_ms"] == pytest.approx(0)
    assert (keys["duration"], keys["completed"], keys["failed"]) == (3.0, 1, 0)
    assert (keys["total_input_tokens"], keys["total_output_tokens"]) == (10, 4)
    assert keys["request_throughput"] == pytest.approx(1 / 3)
    assert keys["output_throughput"] == pytest.approx(4 / 3)
    assert keys["total_token_throughput"] == pytest.approx(14 / 3)


def test_all_keys_are_vllms_except_those_from_send() -> None:
    keys = set(latency_report([]).as_keys())
    assert keys >= VLLM_KEYS
    assert all(key.endswith("_from_send_ms") for key in keys - VLLM_KEYS)


def test_a_metric_without_measurement_is_none_and_not_zero() -> None:
    keys = latency_report([operation(0, 0, [(1.0, 1)], 2.0, outcome=Outcome.INFO)]).as_keys()
    assert (keys["completed"], keys["failed"]) == (0, 1)
    assert keys["mean_ttft_ms"] is None
    assert keys["p99_e2el_from_send_ms"] is None
    assert keys["output_throughput"] == 0


def test_only_ok_operations_are_measured_but_all_count_for_the_duration() -> None:
    slow = [operation(0, 0, [(50.0, 1)], 60.0, outcome=outcome) for outcome in (Outcome.INFO, Outcome.FAIL)]
    report = latency_report([operation(0, 0, [(1.0, 1)], 2.0), *slow])
    assert report.ttft is not None
    assert (report.ttft.mean, report.completed, report.failed, report.duration) == (1000.0, 1, 2, 60.0)


def test_an_answer_that_is_not_streamed_has_only_an_e2e_latency() -> None:
    report = latency_report([operation(1.0, 1.0, [(2.0, 5)], 3.0, streamed=False)])
    assert (report.ttft, report.tpot, report.itl) == (None, None, None)
    assert report.e2el is not None
    assert (report.e2el.mean, report.total_output_tokens) == (2000.0, 5)


def test_a_single_token_has_a_ttft_but_no_tpot_or_itl() -> None:
    report = latency_report([operation(0, 0, [(1.0, 1)], 1.0)])
    assert report.ttft is not None
    assert (report.tpot, report.itl) == (None, None)


def test_the_statistics_are_the_populations() -> None:
    ttfts = [0.1, 0.2, 0.4, 0.8, 1.6]
    report = latency_report([operation(0, 0, [(at, 1)], at) for at in ttfts])
    assert report.ttft is not None
    assert report.ttft.mean == pytest.approx(1000 * statistics.fmean(ttfts))
    assert report.ttft.median == report.ttft.p50 == pytest.approx(400)
    assert report.ttft.std == pytest.approx(1000 * statistics.pstdev(ttfts))
    # Rank 0.9 * 4 = 3.6.
    assert report.ttft.p90 == pytest.approx(800 + 0.6 * 800)


CHUNKS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 4)), min_size=1, max_size=20).map(
    lambda chunks: sorted(chunks, key=lambda chunk: chunk[0])
)


@given(CHUNKS)
def test_inter_token_latencies_sum_to_the_time_from_first_to_last_token(chunks: list[tuple[float, int]]) -> None:
    ended = operation(0, 0, chunks, 11.0).ended
    latencies = inter_token_latencies(ended)
    assert len(latencies) == sum(count for _, count in chunks) - 1
    assert sum(latencies) == pytest.approx(chunks[-1][0] - chunks[0][0])
    if latencies:
        assert time_per_output_token(ended) == pytest.approx(statistics.fmean(latencies))


def test_the_tokens_of_a_chunk_share_its_latency() -> None:
    ended = operation(0, 0, [(1.0, 2), (2.0, 4)], 2.0).ended
    assert inter_token_latencies(ended) == [0.0, 0.25, 0.25, 0.25, 0.25]
