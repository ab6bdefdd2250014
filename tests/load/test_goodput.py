"""Goodput: which requests are good."""

import pytest

from harness.history import Choice, Ended, Operation, Outcome, Sent
from harness.load.goodput import Goodput, goodput
from harness.scenario import Request


def operation(
    name: str,
    *,
    due: float = 0.0,
    sent: float | None = None,
    arrivals: tuple[float, ...] = (0.2, 0.3, 0.4),
    outcome: Outcome = Outcome.OK,
    end: float | None = None,
) -> Operation:
    request = Request(name, (1,))
    last = arrivals[-1] if arrivals else 0.4
    ended = Ended(
        at=last if end is None else end,
        request_id=name,
        outcome=outcome,
        choices=(Choice((7,) * len(arrivals)),),
        token_times=arrivals,
        tokens_per_chunk=(1,) * len(arrivals),
    )
    return Operation(Sent(due if sent is None else sent, request, "s", "load", due), ended)


def good(one: Operation, **objectives: float) -> int:
    return goodput([one], objectives, ()).good


@pytest.mark.parametrize(("metric", "reached"), [("ttft", 200.0), ("tpot", 100.0), ("e2el", 400.0)])
def test_an_objective_is_a_limit_in_milliseconds_that_may_be_reached(metric: str, reached: float) -> None:
    one = operation("a")
    assert good(one, **{metric: reached + 0.01}) == 1
    assert good(one, **{metric: reached - 0.01}) == 0


def test_every_objective_must_be_kept() -> None:
    assert good(operation("a"), ttft=500, tpot=150, e2el=500) == 1
    assert good(operation("a"), ttft=500, tpot=50, e2el=500) == 0


def test_one_token_keeps_every_objective_of_tpot() -> None:
    assert good(operation("a", arrivals=(0.1,)), tpot=0.001) == 1


def test_what_is_not_streamed_arrives_at_its_end() -> None:
    one = operation("a", arrivals=(), end=0.4)
    assert (good(one, ttft=401), good(one, ttft=399), good(one, e2el=399)) == (1, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INFO])
def test_a_request_that_failed_is_not_good(outcome: Outcome) -> None:
    assert good(operation("a", outcome=outcome), ttft=1e6) == 0


def test_a_request_with_a_wrong_output_is_not_good_and_is_counted() -> None:
    found = goodput([operation("a"), operation("b"), operation("late", due=-9.0)], {"e2el": 1000}, {"a", "late"})
    assert (found.good, found.good_from_send, found.wrong, found.requests) == (1, 1, 1, 3)


def test_latencies_count_from_when_a_request_was_due_and_also_from_its_sending() -> None:
    """Waiting 5 s for a slot is latency for who asked, and no latency for a benchmark that counts from the sending."""
    found = goodput([operation("a", due=-5.0, sent=0.0)], {"ttft": 250}, ())
    assert (found.good, found.good_from_send) == (0, 1)


def test_goodput_is_per_second_from_the_first_due_time_to_the_last_end() -> None:
    found = goodput([operation("a"), operation("b", due=1.6, arrivals=(1.7, 2.0))], {"ttft": 250}, ())
    assert (found.duration, found.per_second, found.share) == (2.0, 1.0, 1.0)
    assert found.as_keys()["request_goodput"] == 1.0
    assert goodput([], {"ttft": 1}, ()) == Goodput({"ttft": 1}, 0, 0, 0, 0, 0.0)
