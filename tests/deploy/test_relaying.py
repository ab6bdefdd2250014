"""Relays stand where they are wanted, and nowhere else."""

from pathlib import Path

import pytest
from hand_clock import HandClock
from simulated import simulated

from harness.clock import MonotonicClock
from harness.deploy.nursery import Nursery
from harness.deploy.relaying import Relaying, start_relays
from harness.errors import UsageError
from harness.faults import control_of
from harness.faults.health import answers
from harness.observer import SILENT

SERVERS = {"prefill-0": "http://127.0.0.1:8100", "decode-0": "http://127.0.0.1:8200"}


def _nursery(logs: Path, clock: HandClock | MonotonicClock) -> Nursery:
    return Nursery(logs, clock, 30.0, SILENT)


async def test_without_a_wanted_relay_nothing_is_started(tmp_path: Path) -> None:
    nursery = _nursery(tmp_path, HandClock())
    assert await start_relays(nursery, (), SERVERS) == Relaying()
    assert nursery.names() == ()


@pytest.mark.parametrize("wanted", ["decode-1", "side-channel", "metrics-decode-1", "proxy"])
async def test_a_relay_before_nothing_is_refused_by_name(wanted: str, tmp_path: Path) -> None:
    nursery = _nursery(tmp_path, HandClock())
    with pytest.raises(UsageError, match=wanted):
        await start_relays(nursery, (wanted,), SERVERS)
    assert nursery.names() == ()


async def test_relays_run_in_a_process_of_their_own_and_pass_what_servers_answer(tmp_path: Path) -> None:
    nursery = _nursery(tmp_path, MonotonicClock())
    try:
        async with simulated() as sim:
            urls = {server.name: server.url for server in sim.facts().servers}
            wanted = ("decode-0", "side-channel", "metrics-decode-0")
            side_channel = urls["prefill-0"].removeprefix("http://")
            relaying = await start_relays(nursery, wanted, urls, side_channel)
            assert nursery.names() == ("relays",)
            assert set(relaying.urls) == set(wanted)
            assert list(relaying.metrics) == ["decode-0"]
            assert [detour.partition("=")[0] for detour in relaying.detours] == [
                urls["decode-0"].removeprefix("http://"),
                side_channel,
            ]
            relays = control_of(relaying.control, relaying.urls, {})
            assert relays is not None
            assert await answers(relaying.urls["decode-0"], within=20)
            assert (await relays.counted("decode-0"))["passed"] > 0
            assert await relays.reads_metrics("metrics-decode-0")
    finally:
        await nursery.stop()
