"""What is said of warm-up and of the shares of the time to first token."""

from dataclasses import replace

from harness.history import Ended, Operation, Outcome, Sent
from harness.load.latency import latency_detail
from harness.reports.latency_rows import shares_line, steady_line
from harness.scenario import Request, Sampling


def operations(count: int, ttft: float = 0.5, **shares: float) -> list[Operation]:
    """One a second, with a slow beginning of ten requests."""
    found = []
    for n in range(count):
        first = n + (4 * ttft if n < 10 else ttft + n % 3 / 100)
        ended = Ended(first, f"r{n}", Outcome.OK, token_times=(first,), tokens_per_chunk=(1,), **shares)
        found.append(Operation(Sent(float(n), Request(f"r{n}", (1,), Sampling(1)), "s", "p", float(n)), ended))
    return found


def test_warm_up_is_left_out() -> None:
    line = steady_line(latency_detail(operations(120)))
    assert line.startswith("TTFT p50 510, p99 520 ms; E2E p50 510, p99 520 ms; ")
    assert line.endswith("requests/s, without the 10 requests (10 s) of warm-up")


def test_no_warm_up() -> None:
    slow = operations(130)[10:]
    assert steady_line(latency_detail(slow)).endswith("requests/s, from the first request on")


def test_too_few_requests_say_nothing() -> None:
    assert steady_line(latency_detail(operations(50))) == ""


def test_shares_are_parts_of_the_mean() -> None:
    detail = latency_detail(operations(120, proxy_seconds=0.005, prefill_seconds=0.3)[10:])
    assert shares_line(detail) == (
        "of the mean TTFT, 59% prefill server, 40% decode server with KV transfer and network, 1.0% proxy (5.00 ms)"
    )


def test_waiting_is_said_if_it_shows() -> None:
    late = [
        replace(one, sent=replace(one.sent, intended_at=one.sent.intended_at - 0.51))
        for one in operations(120, proxy_seconds=0.005, prefill_seconds=0.3)[10:]
    ]
    assert shares_line(latency_detail(late)).endswith("0.5% proxy (5.00 ms), 50% waiting to be sent")


def test_a_proxy_that_says_nothing() -> None:
    assert shares_line(latency_detail(operations(120))) == ""


def test_requests_that_failed_have_no_share() -> None:
    done = operations(3, proxy_seconds=0.1, prefill_seconds=0.2)
    failed = [replace(one, ended=replace(one.ended, outcome=Outcome.INFO)) for one in done]
    assert shares_line(latency_detail(done))
    assert shares_line(latency_detail(failed)) == ""
