"""Slow prefills: a share of the prompts, the same ones in each run, and only those that decode fetches."""

import json
from typing import Any

import pytest

from harness.sim.__main__ import _parser, config_of
from harness.sim.slow import is_slow

FETCHED = {"do_remote_decode": True}


def body(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": [5, 6, number], "kv_transfer_params": FETCHED, **more}


def test_about_the_share_is_slow_and_always_the_same_prompts() -> None:
    slow = {number for number in range(4000) if is_slow(body(number), 0.03)}
    assert 80 <= len(slow) <= 160
    assert slow == {number for number in range(4000) if is_slow(body(number, cache_salt="other"), 0.03)}
    assert slow < {number for number in range(4000) if is_slow(body(number), 0.1)}


@pytest.mark.parametrize("params", [None, {}, {"do_remote_decode": False}, {"do_remote_prefill": True}, "text"])
def test_requests_whose_kv_nobody_fetches_are_never_slow(params: object) -> None:
    assert not is_slow(body(1, kv_transfer_params=params), 1.0)
    assert is_slow(body(1), 1.0)


def test_without_a_share_nothing_is_slow() -> None:
    assert not any(is_slow(body(number), 0.0) for number in range(100))


def test_the_command_line_reads_share_and_seconds() -> None:
    ports = ["--prefill-port", "1", "--decode-port", "2"]
    slow = config_of(_parser().parse_args([*ports, "--slow-prefills", "0.03:0.2"]))
    assert (slow.slow_share, slow.slow_seconds) == (0.03, 0.2)
    usual = config_of(_parser().parse_args([*ports, "--fields", json.dumps({})]))
    assert (usual.slow_share, usual.slow_seconds) == (0.0, 0.0)
