"""Arrivals are read together only when there are very many of them, and never later than the interval."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.transport.gathering import DENSE, INTERVAL_S, Gathering


class _Loop:
    """Turns of an event loop, by hand: what was scheduled runs when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self._scheduled: list[Callable[[], None]] = []
        self.gathering = Gathering(cast("asyncio.AbstractEventLoop", self), lambda: self.now, self._wait)

    def call_soon(self, call: Callable[[], None]) -> None:
        self._scheduled.append(call)

    def turn(self, pieces: int, seconds: float) -> None:
        """Read so many pieces, which takes so long, and go on to the next turn."""
        for _ in range(pieces):
            self.gathering.count(1)
        self.now += seconds
        assert len(self._scheduled) <= 1
        for call in self._scheduled:
            call()
        self._scheduled.clear()

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_few_pieces_are_read_at_once() -> None:
    loop = _Loop()
    for _ in range(1_000):
        loop.turn(pieces=4, seconds=0.0001)
    assert not loop.waits


def test_very_many_pieces_are_read_once_in_an_interval() -> None:
    loop = _Loop()
    for _ in range(1_000):
        loop.turn(pieces=32, seconds=0.0001)
    late = loop.waits[-100:]
    assert late == pytest.approx([INTERVAL_S - 0.0001] * len(late))
    assert len(loop.waits) > 800


def test_a_loop_that_is_behind_is_not_delayed() -> None:
    loop = _Loop()
    for _ in range(1_000):
        loop.turn(pieces=1_000, seconds=2 * INTERVAL_S)
    assert loop.gathering.is_dense
    assert not loop.waits


def test_one_long_turn_is_not_many_arrivals() -> None:
    loop = _Loop()
    loop.turn(pieces=400, seconds=0.02)
    assert not loop.gathering.is_dense


def test_it_ends_when_arrivals_become_few() -> None:
    loop = _Loop()
    for _ in range(200):
        loop.turn(pieces=32, seconds=0.0001)
    assert loop.waits
    for _ in range(200):
        loop.turn(pieces=1, seconds=0.001)
    loop.waits.clear()
    loop.turn(pieces=1, seconds=0.0001)
    assert not loop.waits


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(1e-6, 0.05)), max_size=200))
def test_no_read_waits_longer_than_the_interval(turns: list[tuple[int, float]]) -> None:
    loop = _Loop()
    for pieces, seconds in turns:
        before = len(loop.waits)
        loop.turn(pieces, seconds)
        assert sum(loop.waits[before:]) + seconds <= max(INTERVAL_S, seconds) + 1e-9


@given(st.lists(st.floats(0.0005, 0.01), min_size=50, max_size=200))
def test_below_the_bound_nothing_ever_waits(turns: list[float]) -> None:
    loop = _Loop()
    for seconds in turns:
        loop.turn(max(1, int(DENSE * seconds * 0.9)), seconds)
    assert not loop.waits
