"""Columns of arrivals, beside the operations that they are made of."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.history import Ended, Operation, Outcome, Sent
from harness.load.latency.arrivals import arrivals_of, inter_token_latencies, last_arrival, time_per_output_token
from harness.scenario import Request

TIMES = st.lists(st.integers(1, 4), max_size=5).map(lambda gaps: tuple(np.cumsum(gaps, dtype=float).tolist()))
OPERATIONS = st.lists(st.tuples(TIMES, st.sampled_from([Outcome.OK, Outcome.OK, Outcome.INFO])), max_size=8)


def operation(number: int, times: tuple[float, ...], outcome: Outcome) -> Operation:
    ended = Ended(90.0 + number, "r", outcome, token_times=times, tokens_per_chunk=(1,) * len(times))
    return Operation(Sent(number + 0.5, Request("r", ()), "s", "p", number), ended)


@given(drawn=OPERATIONS, data=st.data())
def test_the_columns_are_those_of_the_chosen_operations(
    drawn: list[tuple[tuple[float, ...], Outcome]], data: st.DataObject
) -> None:
    done = [operation(number, *one) for number, one in enumerate(drawn)]
    arrived = arrivals_of(tuple(done))
    done = [one for one in done if one.outcome is Outcome.OK]
    places = data.draw(st.lists(st.sampled_from(range(len(done))), unique=True)) if done else []
    chosen, found = [done[place] for place in places], arrived.at(np.array(places, int))
    assert found.due.tolist() == [one.sent.intended_at for one in chosen]
    assert found.sent.tolist() == [one.sent.at for one in chosen]
    assert found.last.tolist() == [last_arrival(one.ended) for one in chosen]
    assert found.streamed.tolist() == [bool(one.ended.token_times) for one in chosen]
    assert found.first[found.streamed].tolist() == [one.ended.token_times[0] for one in chosen if one.ended.token_times]
    assert [each.tolist() for each in found.itls()] == [inter_token_latencies(one.ended) for one in chosen]
    tpots = [time_per_output_token(one.ended) for one in chosen]
    assert found.tpot.tolist() == [tpot for tpot in tpots if tpot is not None]
