"""The servers and the client that the proxy is measured with."""

import os

import pytest

from bench.proxy_stub import _prefilled, _stream, load, serving
from harness.proxy.handover import take_handover


@pytest.mark.parametrize(("events", "pieces"), [(1, 1), (128, 1), (128, 16), (7, 3), (128, 128)])
async def test_a_stream_is_the_same_in_any_number_of_pieces(events: int, pieces: int) -> None:
    sent = _stream(events, pieces)
    assert len(sent) == pieces
    assert b"".join(sent) == _stream(events, 1)[0]
    assert b"".join(sent).count(b"data: ") == events


def test_every_stream_is_counted_once() -> None:
    core = min(os.sched_getaffinity(0))
    with serving(core, events=8, pieces=4) as (_, decode):
        timed = load(f"http://127.0.0.1:{decode}", b"{}", requests=20, concurrency=3)
    assert len(timed.first_bytes) == 20
    assert 0 < timed.ttft < timed.seconds


def test_the_prefill_server_hands_its_kv_over() -> None:
    assert take_handover(_prefilled().partition(b"\r\n\r\n")[2]).params["do_remote_prefill"] is True
