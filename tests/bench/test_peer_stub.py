"""The stub that load generators are compared on, as a process, and what it stamps."""

import os
import time

import numpy as np
import pytest

from bench.peer_answers import Form, stream
from bench.stamps import Shape, stub
from harness.clock import Clock, MonotonicClock
from harness.history import Ended, Outcome
from harness.load.client import Client
from harness.scenario import Request, Route, Sampling

_CORE = min(os.sched_getaffinity(0))
_TOKENS = 6


async def _ask(url: str, names: list[str], clock: Clock | None = None) -> list[Ended]:
    async with Client({Route.PROXY: [url]}, model="m", clock=clock or MonotonicClock(), timeout=30) as client:
        return [await client.send(Request(name, (1, 2, 3), Sampling(_TOKENS))) for name in names]


async def test_every_whole_stream_is_stamped_once_and_under_its_request_id() -> None:
    with stub(Shape(_TOKENS, 3, 3), _CORE) as serving:
        ended = await _ask(serving.url, ["a", "b"])
        stamps = serving.take()
        assert not len(serving.take().arrived)
    assert [one.outcome for one in ended] == [Outcome.OK] * 2
    assert [one.choices[0].token_ids for one in ended] == [tuple(range(1000, 1000 + _TOKENS))] * 2
    assert stamps.by_id == {"a": 0, "b": 1}
    assert stamps.by_number == {1: 0, 2: 1}
    assert stamps.written.shape == (2, 3)


async def test_a_paced_stream_is_never_written_before_it_is_due() -> None:
    with stub(Shape(_TOKENS, 3, 3, first_ms=20, interval_ms=5), _CORE) as serving:
        clock, zero = MonotonicClock(), time.monotonic()
        (ended,) = await _ask(serving.url, ["a"], clock)
        stamps = serving.take()
    assert (1000 * (stamps.written[0] - stamps.arrived[0]) >= [20, 25, 30]).all()
    # Both clocks are CLOCK_MONOTONIC, and the client's began at ``zero`` or a moment before.
    assert (zero + np.array(ended.token_times) >= stamps.token_times(_TOKENS)[0]).all()


@pytest.mark.parametrize("kind", [Form.IDS, Form.TEXT])
def test_streams_of_both_forms_have_as_many_tokens(kind: Form) -> None:
    assert b"".join(stream(kind, _TOKENS, 3, 3)).count(b'"text":" word"') == _TOKENS
