"""A decode server is stopped until requests that wait for it have expired on prefill, which is kept busy meanwhile."""

from collections.abc import AsyncIterator
from dataclasses import replace
from signal import SIGSTOP, Signals

import counted_run as run
import pytest
import pytest_asyncio
from fault_world import FaultWorld, Table, fault_world

from harness.errors import UsageError
from harness.faults import NoEvidence, Site, parse_fault, under_faults
from harness.faults.churn import churned
from harness.faults.lease import Lease
from harness.faults.pause import Pause
from harness.scenario import Phase, Route, Scenario


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultWorld]:
    async def stopped(_pause: Pause, _site: Site) -> str:
        return "decode-0 is stopped"

    async def goes_on(_pause: Pause, _site: Site) -> str:
        return "decode-0 goes on"

    monkeypatch.setattr(Pause, "strike", stopped)
    monkeypatch.setattr(Pause, "heal", goes_on)
    async with fault_world() as made:
        made.values["prefill-0"] = {"nixl_expired": 5.0}
        yield made


async def test_requests_that_expire_while_decode_is_stopped_are_the_evidence(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Lease()
    sleep = world.site.clock.sleep

    async def expire(seconds: float) -> None:
        await sleep(seconds)
        if world.site.clock.now() >= 3.0:
            tokens = 900.0 + (world.site.clock.now() > 3.1) * 64
            world.values["prefill-0"] = {"nixl_expired": 12.0, "prompt_tokens": tokens}

    monkeypatch.setattr(world.site.clock, "sleep", expire)
    evidence = await fault.strike(world.site)
    assert evidence == (
        "decode-0 is stopped; 3.0 s later prefill-0 had counted 7 expired requests, "
        "and computed 64 tokens of other prompts since"
    )
    assert await fault.heal(world.site) == "decode-0 goes on"


async def test_blocks_that_nobody_takes_after_the_lease_test_nothing(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing keeps prefill busy: the expired blocks still hold what they held."""
    sleep = world.site.clock.sleep

    async def expire(seconds: float) -> None:
        await sleep(seconds)
        world.values["prefill-0"] = {"nixl_expired": 12.0, "prompt_tokens": 900.0}

    monkeypatch.setattr(world.site.clock, "sleep", expire)
    with pytest.raises(NoEvidence, match="prefill-0 has computed no prompt since requests expired"):
        await Lease().strike(world.site)


async def test_a_pause_in_which_nothing_expires_is_no_such_fault(world: FaultWorld) -> None:
    fault = Lease()
    with pytest.raises(NoEvidence, match="no prefill server counted an expired request within 60 s"):
        await fault.strike(world.site)
    assert await fault.heal(world.site) == "decode-0 goes on"


async def test_requests_that_expire_before_decode_is_stopped_are_no_evidence(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another fault, or clients that left, may let some expire while this one waits for its moment."""

    async def stopped(_pause: Pause, _site: Site) -> str:
        world.values["prefill-0"] = {"nixl_expired": 12.0}
        return "decode-0 is stopped"

    monkeypatch.setattr(Pause, "strike", stopped)
    with pytest.raises(NoEvidence):
        await Lease().strike(world.site)


async def test_a_server_that_cannot_be_read_at_first_counts_from_its_first_reading(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.values["prefill-0"]
    sleep = world.site.clock.sleep

    async def answer(seconds: float) -> None:
        await sleep(seconds)
        world.values["prefill-0"] = {"nixl_expired": 12.0}

    monkeypatch.setattr(world.site.clock, "sleep", answer)
    with pytest.raises(NoEvidence):
        await Lease().strike(world.site)


async def test_a_fault_that_was_not_begun_leaves_decode_as_it_is(world: FaultWorld) -> None:
    assert await Lease().heal(world.site) == "nothing was done to decode-0"


def test_prefill_is_kept_busy_by_prompts_that_no_cache_has() -> None:
    load = Phase("load", (run.request(0), run.request(1)), concurrency=2)
    scenario = Scenario("cold", "", (load,))
    sent, *reads = under_faults(scenario, run.DEPLOYMENT, [parse_fault("lease")]).phases
    assert sent.requests == load.requests
    assert sent.background_concurrency == 4
    assert {one.route for one in sent.background} == {Route.PREFILL}
    assert {one.sampling.max_tokens for one in sent.background} == {1}
    prompts = [one.prompt for one in sent.background[:100]]
    assert len({*prompts, *(one.prompt for one in load.requests)}) == 102
    assert sorted(prompts[2]) == sorted(prompts[0])
    assert len({one.request_id for one in sent.background}) == len(sent.background)
    assert not any(read.background for read in reads)


def test_a_load_of_texts_has_no_tokens_to_turn_round() -> None:
    text = run.request(0)
    load = churned(Phase("load", (type(text)("r", "some words"),)))
    assert load.background == ()


def test_other_faults_add_no_requests() -> None:
    scenario = Scenario("cold", "", (Phase("load", (run.request(0),)),))
    assert not under_faults(scenario, run.DEPLOYMENT, [parse_fault("pause")]).phases[0].background


def test_decode_must_have_read_what_had_expired() -> None:
    assert parse_fault("lease").provokes == "nixl_after_expiry"
    assert parse_fault("lease:provokes=nixl_expired").provokes == "nixl_expired"


class Stoppable(Table):
    """Processes that stop and go on."""

    def send(self, pid: int, number: Signals) -> bool:
        self.sent.append((pid, number))
        self.states[pid] = "T" if number == SIGSTOP else "S"
        return True


async def test_an_engine_is_stopped_and_the_process_that_speaks_http_goes_on() -> None:
    async with fault_world() as world:
        table = Stoppable(world.table.states)
        site = replace(world.site, table=table)
        fault = Pause("decode-0", part="engine")
        evidence = await fault.strike(site)
        assert evidence == (
            "1 processes of decode-0 are stopped (state T), all but the one that speaks HTTP, "
            "and have used 80% of its processor time"
        )
        assert table.states == {10: "S", 11: "T"}
        await fault.heal(site)
        assert table.states == {10: "S", 11: "S"}


async def test_an_idle_child_that_is_stopped_is_no_engine() -> None:
    """The server goes on, and the process that speaks HTTP would answer either way."""
    async with fault_world() as world:
        table = Stoppable(world.table.states, ticks={10: 1000, 11: 1})
        fault = Pause("decode-0", part="engine")
        with pytest.raises(NoEvidence, match=r"used 0\.1% of the processor time of decode-0: its engine is not among"):
            await fault.strike(replace(world.site, table=table))
        await fault.heal(replace(world.site, table=table))
        assert table.states == {10: "S", 11: "S"}


async def test_an_engine_that_does_not_stop_is_no_evidence() -> None:
    async with fault_world() as world:
        with pytest.raises(NoEvidence, match="not all T"):
            await Pause("decode-0", part="engine").strike(world.site)


async def test_a_server_of_one_process_is_stopped_whole_and_must_not_answer() -> None:
    async with fault_world() as world:
        del world.table.states[11]
        with pytest.raises(NoEvidence, match="still answers"):
            await Pause("decode-0", part="engine").strike(replace(world.site, table=Stoppable(world.table.states)))


def test_the_parts_of_a_server_are_named() -> None:
    with pytest.raises(UsageError, match="give one of all, engine"):
        parse_fault("pause:part=half")
