"""Whose share of the time to first token it is."""

import pytest

from harness.history import Ended, Operation, Outcome, Sent
from harness.load.latency.shares import latency_shares
from harness.scenario import Request, Sampling


def operation(
    *,
    due: float = 0.0,
    sent: float = 0.0,
    times: tuple[float, ...] = (1.0, 3.0),
    proxy: float | None,
    prefill: float | None,
) -> Operation:
    request = Request("r", (1, 2, 3), Sampling(2))
    ended = Ended(9.0, "r", Outcome.OK, token_times=times, proxy_seconds=proxy, prefill_seconds=prefill)
    return Operation(Sent(sent, request, "s", "p", due), ended)


def test_shares_add_up_to_the_latencies() -> None:
    found = latency_shares(
        [
            operation(due=0.0, sent=0.5, times=(1.5, 3.5), proxy=0.1, prefill=0.6),
            operation(due=1.0, sent=1.0, times=(2.0, 2.0), proxy=0.3, prefill=0.2),
        ]
    )
    assert found is not None
    assert found.requests == 2
    assert (found.waiting, found.proxy, found.prefill) == pytest.approx((250, 200, 400))
    assert (found.decode_first, found.decode_rest) == pytest.approx((400, 1000))
    assert found.ttft == pytest.approx((1500 + 1000) / 2)


def test_operations_without_shares_do_not_count() -> None:
    known = operation(proxy=0.25, prefill=0.5)
    found = latency_shares([operation(proxy=None, prefill=None), known, operation(times=(), proxy=0.1, prefill=0.1)])
    assert found == latency_shares([known])


def test_nothing_known() -> None:
    assert latency_shares([operation(proxy=None, prefill=None)]) is None
    assert latency_shares([]) is None


def test_no_share_is_negative() -> None:
    found = latency_shares([operation(times=(1.0,), proxy=0.6, prefill=0.5)])
    assert found is not None
    assert found.decode_first == 0
