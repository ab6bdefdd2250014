"""A fault waits for a moment that is observed, and is not begun if the moment does not come."""

import asyncio
from collections.abc import Awaitable, Mapping

import pytest
from counted_run import DEPLOYMENT
from hand_clock import HandClock

from harness.errors import UsageError
from harness.faults import FaultPlan, Site, parse_fault
from harness.faults.moments import Moment, State
from harness.faults.pause import Pause
from harness.observer import SILENT
from harness.run.conversations import Conversations
from harness.run.runner import PhaseRun
from harness.scenario import Phase


class Waiting:
    """A moment that is waited for, with gauges and a load that the test sets."""

    def __init__(self, moment: Moment, target: str = "decode-0") -> None:
        self.clock = HandClock()
        self.gauges: dict[str, dict[str, float]] = {}
        site = Site(DEPLOYMENT, self.clock, values=self._read)
        self.load = PhaseRun("s", Phase("load", ()), _never, _ignore, self.clock, SILENT, Conversations(()))
        self.task = asyncio.create_task(moment.come(site, target, self.load))

    async def _read(self, server: str) -> Mapping[str, float]:
        return self.gauges.get(server, {})

    async def came(self, at: float) -> str | None:
        """What was observed, if the moment has come by this time."""
        await self.clock.advance(at)
        if self.task.done():
            return self.task.result()
        return None

    def end(self) -> None:
        self.task.cancel()


def _never(_request: object) -> Awaitable[None]:
    raise AssertionError


def _ignore(_entry: object) -> None:
    pass


async def test_a_time_comes_by_itself() -> None:
    waiting = Waiting(Moment(after=2))
    assert await waiting.came(1.9) is None
    assert await waiting.came(2) == ""


async def test_requests_that_have_ended_are_counted() -> None:
    waiting = Waiting(Moment(ended=50))
    waiting.load.ended = 49
    assert await waiting.came(100) is None
    waiting.load.ended = 50
    assert await waiting.came(101) == "50 requests had ended"


@pytest.mark.parametrize(
    ("target", "running", "comes"),
    [
        ("decode-0", {"decode-0": 3.0}, "decode-0 had 3 running requests"),
        ("decode-0", {"prefill-0": 3.0}, None),
        ("prefill-0", {"prefill-0": 1.0}, "prefill-0 had 1 running requests"),
        ("proxy", {"decode-0": 2.0}, "decode-0 had 2 running requests"),
        ("proxy", {}, None),
    ],
)
async def test_a_request_runs_on_the_target(target: str, running: dict[str, float], comes: str | None) -> None:
    waiting = Waiting(Moment(state=State.ADMITTED), target)
    assert await waiting.came(10) is None
    waiting.gauges = {name: {"running": value} for name, value in running.items()}
    assert await waiting.came(11) == comes
    waiting.end()


@pytest.mark.parametrize("target", ["decode-0", "prefill-0", "proxy"])
async def test_a_transfer_is_under_way_when_decode_waits_and_prefill_holds_blocks(target: str) -> None:
    waiting = Waiting(Moment(state=State.TRANSFERRING), target)
    waiting.gauges = {"decode-0": {"waiting": 2.0}, "prefill-0": {"kv_usage": 0.0}}
    assert await waiting.came(1) is None
    waiting.gauges = {"decode-0": {"waiting": 0.0}, "prefill-0": {"kv_usage": 0.25}}
    assert await waiting.came(2) is None
    waiting.gauges = {"decode-0": {"waiting": 2.0}, "prefill-0": {"kv_usage": 0.25}}
    seen = await waiting.came(3)
    assert seen == "decode-0 had 2 waiting requests, and prefill-0 held 25.0% of its KV"


async def test_a_prefill_server_that_holds_blocks_has_admitted_a_request() -> None:
    waiting = Waiting(Moment(state=State.ADMITTED), "prefill-0")
    waiting.gauges = {"prefill-0": {"running": 0.0, "kv_usage": 0.5}}
    assert await waiting.came(1) == "prefill-0 held 50.0% of its KV for requests"


@pytest.mark.parametrize("target", ["decode-0", "prefill-0", "proxy"])
async def test_prefill_waits_for_decode_when_it_holds_blocks_and_has_nothing_to_do(target: str) -> None:
    waiting = Waiting(Moment(state=State.PREFILLED), target)
    at_work = {"running": 1.0, "waiting": 0.0, "kv_usage": 0.25}
    for at, gauges in enumerate((at_work, at_work | {"running": 0.0, "waiting": 1.0}, {"kv_usage": 0.25}), start=1):
        waiting.gauges = {"prefill-0": gauges}
        assert await waiting.came(at) is None
    waiting.gauges = {"prefill-0": {"running": 0.0, "waiting": 0.0, "kv_usage": 0.0}}
    assert await waiting.came(4) is None
    waiting.gauges = {"prefill-0": {"running": 0.0, "waiting": 0.0, "kv_usage": 0.25}}
    seen = await waiting.came(5)
    assert seen == "prefill-0 held 25.0% of its KV for decode, and no request ran or waited there"


async def test_a_server_that_cannot_be_read_is_in_no_state() -> None:
    waiting = Waiting(Moment(state=State.TRANSFERRING))
    assert await waiting.came(100) is None
    waiting.end()


async def test_all_conditions_come_one_after_the_other() -> None:
    waiting = Waiting(Moment(after=5, ended=3, state=State.ADMITTED))
    waiting.load.ended = 3
    waiting.gauges = {"decode-0": {"running": 1.0}}
    assert await waiting.came(4.9) is None
    assert await waiting.came(6) == "3 requests had ended, decode-0 had 1 running requests"


def test_the_moment_is_an_option_of_every_fault() -> None:
    plan = parse_fault("pause:server=decode-0,when=transferring,ended=7,for=2")
    assert plan == FaultPlan(Pause("decode-0"), after=0, seconds=2, ended=7, state=State.TRANSFERRING)
    assert plan.text.endswith("after 7 requests have ended, when a KV transfer is under way")
    assert parse_fault("pause:when=admitted,after=4").after == 4
    assert parse_fault("pause").after > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pause:when=soon", "there are admitted, transferring, prefilled"),
        ("pause:ended=many", "number of requests"),
        ("pause:ended=-1", "number of requests"),
    ],
)
def test_moments_that_nobody_knows_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_fault(text)


def test_a_fault_may_have_to_provoke_something() -> None:
    for text in ("kill:server=prefill-0,provokes=nixl_failed_transfers", "cancel:provokes=nixl_failed_transfers"):
        assert parse_fault(text).provokes == "nixl_failed_transfers"
    assert not parse_fault("kill").provokes
    with pytest.raises(UsageError, match="give one of the counters nixl_failed_transfers, "):
        parse_fault("kill:provokes=nonsense")
