"""The busiest second of a load, beside a count one token and one request at a time."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from harness.history import Ended, Operation, Outcome, Sent
from harness.load.latency import latency_report
from harness.scenario import Request

# Quarters are exact in binary, so that no token comes to lie on the wrong side of a second.
QUARTERS = st.integers(1, 12).map(lambda quarters: quarters / 4)
OPERATIONS = st.lists(st.tuples(QUARTERS, st.lists(QUARTERS, max_size=6), st.booleans()), max_size=8)


def operation(sent: float, gaps: list[float], outcome: Outcome) -> Operation:
    times = tuple(sent + sum(gaps[: n + 1]) for n in range(len(gaps)))
    ended = Ended(sent + sum(gaps) + 0.5, "r", outcome, token_times=times, tokens_per_chunk=(1,) * len(times))
    return Operation(Sent(sent, Request("r", ()), "s", "p", sent), ended)


@given(drawn=OPERATIONS)
def test_peaks_are_those_of_a_count_by_second(drawn: list[tuple[float, list[float], bool]]) -> None:
    operations = [operation(at, gaps, Outcome.OK if ok else Outcome.INFO) for at, gaps, ok in drawn]
    done = [one for one in operations if one.outcome is Outcome.OK]
    begin = min((one.sent.at for one in done), default=0.0)
    tokens, requests = Counter[int](), Counter[int]()
    for one in done:
        times = one.ended.token_times
        tokens.update(math.floor(time - begin) for time in times)
        last = times[-1] if times else one.ended.at
        requests.update(range(math.floor(one.sent.at - begin), math.floor(last - begin) + 1))
    report = latency_report(operations)
    assert report.max_output_tokens_per_s == max(tokens.values(), default=0)
    assert report.max_concurrent_requests == max(requests.values(), default=0)


def test_requests_that_follow_each_other_within_a_second_count_together() -> None:
    operations = [operation(10.0, [0.25], Outcome.OK), operation(10.5, [0.25, 1.0], Outcome.OK)]
    report = latency_report(operations)
    assert (report.max_output_tokens_per_s, report.max_concurrent_requests) == (2, 2)
