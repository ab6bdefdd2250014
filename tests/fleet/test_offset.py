"""Clocks of workers are compared as in NTP, and set to the run's clock."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.fleet.clocks import Clocks
from harness.fleet.offset import Exchange, best, correction

ways = st.floats(0, 1)


def exchange(ahead: float, there: float, back: float, *, asked: float = 100.0, thinking: float = 0.5) -> Exchange:
    arrived = asked + there
    replied = arrived + thinking
    return Exchange(asked, arrived + ahead, replied + ahead, replied + back)


@given(st.floats(-1e6, 1e6), ways, ways)
def test_the_true_offset_lies_within_the_uncertainty(ahead: float, there: float, back: float) -> None:
    found = exchange(ahead, there, back)
    assert abs(found.ahead - ahead) <= found.uncertainty + 1e-9


def test_equal_ways_give_the_offset_itself() -> None:
    found = exchange(3.0, 0.004, 0.004)
    assert found.ahead == pytest.approx(3.0)
    assert found.uncertainty == pytest.approx(0.004)


def test_the_shortest_way_counts() -> None:
    slow, quick = exchange(3.0, 0.5, 0.001), exchange(3.0, 0.001, 0.001)
    assert best([slow, quick, slow]) is quick


def test_an_offset_that_cannot_be_told_from_nothing_is_not_corrected() -> None:
    assert correction(exchange(0.0, 0.003, 0.001)) == 0.0
    assert correction(exchange(3.0, 0.003, 0.001)) == pytest.approx(-3.001)


class HandClock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.time = 50.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Distant:
    """A worker whose clock is ahead, and whose messages take a while: each call takes longer than the one before."""

    def __init__(self, clock: HandClock, ahead: float) -> None:
        self.name = "worker-0"
        self.clock, self.ahead = clock, ahead
        self.way = 0.001

    async def call(self, method: str, *arguments: Any) -> Any:
        if method == "correct":
            self.ahead += arguments[0]
            return None
        self.clock.time += self.way
        now = self.clock.time + self.ahead
        self.clock.time += self.way
        self.way *= 1.1
        return now, now

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("ahead", [3.0, -3.0, 0.0])
async def test_a_clock_is_set_to_the_runs_and_what_it_was_ahead_is_recorded(ahead: float) -> None:
    clock = HandClock()
    clocks, worker = Clocks(clock), Distant(clock, ahead)
    await clocks.set(worker)
    assert worker.ahead == pytest.approx(0.0)
    compared = await clocks.compared(worker)
    assert (compared.worker, compared.ahead) == ("worker-0", pytest.approx(ahead))
    assert compared.drift == 0.0
    assert compared.uncertainty == pytest.approx(0.001 * 1.1**16), "the shortest way of the later comparison"


async def test_a_clock_that_drifts_is_found_and_corrected_before_the_next_phase() -> None:
    clock = HandClock()
    clocks, worker = Clocks(clock), Distant(clock, 3.0)
    await clocks.set(worker)
    worker.ahead += 0.02
    worker.way = 0.001
    compared = await clocks.compared(worker)
    assert compared.drift == pytest.approx(0.02)
    worker.way = 0.001
    await clocks.set(worker)
    assert worker.ahead == pytest.approx(0.0)
    assert (await clocks.compared(worker)).ahead == pytest.approx(3.02)
