"""A server is killed or drained, which is shown by its processes and its address, and others run in its place."""

from collections.abc import AsyncIterator
from signal import SIGKILL, SIGTERM

import pytest
import pytest_asyncio
from fault_world import FaultWorld, fault_world

from harness.errors import UsageError
from harness.faults import Fault, NoEvidence, Site
from harness.faults.drain import Drain
from harness.faults.kill import Kill
from harness.history import Tolerated


@pytest_asyncio.fixture
async def world() -> AsyncIterator[FaultWorld]:
    async with fault_world() as made:
        yield made


def both() -> list[Kill | Drain]:
    return [Kill("decode-0"), Drain("decode-0")]


@pytest.mark.parametrize("fault", both(), ids=["kill", "drain"])
async def test_a_server_ends_and_others_run_in_its_place(world: FaultWorld, fault: Kill | Drain) -> None:
    await fault.prepare(world.site)
    evidence = await fault.strike(world.site)
    assert "refuses connections" in evidence
    assert not world.table.states
    assert world.processes.expected == ["decode-0"]
    healing = await fault.heal(world.site)
    assert "20, 21 in place of 10, 11" in healing
    assert "process_start_time_seconds 2.00 in place of 1.00" in healing


async def test_a_kill_hits_every_process_at_once(world: FaultWorld) -> None:
    await Kill("decode-0").strike(world.site)
    assert world.table.sent == [(10, SIGKILL), (11, SIGKILL)]


async def test_draining_asks_the_first_process_only_and_kills_what_is_left(world: FaultWorld) -> None:
    evidence = await Drain("decode-0", grace=5).strike(world.site)
    assert world.table.sent == [(10, SIGTERM), (11, SIGKILL)]
    assert "1 of its processes were killed 5 s after SIGTERM" in evidence


async def test_a_server_that_goes_on_after_sigterm_was_killed_and_not_drained(world: FaultWorld) -> None:
    """As if SIGTERM had never been sent: that run tests a kill."""
    world.table.obeys = frozenset({SIGKILL})
    with pytest.raises(NoEvidence, match="decode-0 went on for 5 s after SIGTERM as before it, until it was killed"):
        await Drain("decode-0", grace=5).strike(world.site)
    assert not world.table.states


async def test_a_server_that_only_stops_to_listen_has_heard_sigterm(world: FaultWorld) -> None:
    world.table.obeys = frozenset({SIGKILL})
    world.server.close()
    assert "2 of its processes were killed" in await Drain("decode-0", grace=5).strike(world.site)


async def test_a_server_that_is_merely_too_busy_to_answer_was_not_killed(world: FaultWorld) -> None:
    """The signal hit other processes, and another fault, or the load, keeps the server from answering."""
    world.table.ended = lambda: None
    world.server.silent = True
    with pytest.raises(NoEvidence, match="still accepts connections"):
        await Kill("decode-0").strike(world.site)


async def test_a_port_that_closes_a_little_after_its_process_has_ended_counts(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.table.ended = lambda: None
    sleep = world.site.clock.sleep

    async def closed_meanwhile(seconds: float) -> None:
        world.server.close()
        await sleep(seconds)

    monkeypatch.setattr(world.site.clock, "sleep", closed_meanwhile)
    assert "refuses connections" in await Kill("decode-0").strike(world.site)


async def test_draining_says_how_long_a_server_took_by_itself(world: FaultWorld) -> None:
    del world.table.states[11]
    evidence = await Drain("decode-0").strike(world.site)
    assert world.table.sent == [(10, SIGTERM)]
    assert "ended by itself 0.0 s after SIGTERM" in evidence


@pytest.mark.parametrize("fault", both(), ids=["kill", "drain"])
async def test_a_signal_that_does_nothing_is_no_fault(world: FaultWorld, fault: Fault) -> None:
    world.table.obeys = frozenset()
    with pytest.raises(NoEvidence, match="processes of decode-0 still run after 1 s: 10, 11"):
        await fault.strike(world.site)


@pytest.mark.parametrize("fault", both(), ids=["kill", "drain"])
async def test_a_server_that_still_listens_was_not_hit(world: FaultWorld, fault: Fault) -> None:
    world.table.ended = lambda: None
    with pytest.raises(
        NoEvidence, match="decode-0 still accepts connections, although its processes 10, 11 have ended"
    ):
        await fault.strike(world.site)


@pytest.mark.parametrize("fault", both(), ids=["kill", "drain"])
async def test_a_server_that_had_ended_before_is_left_as_it_is(world: FaultWorld, fault: Fault) -> None:
    """Its death is none of the fault's doing, and must be reported."""
    world.table.states.clear()
    with pytest.raises(NoEvidence, match="had ended before"):
        await fault.strike(world.site)
    assert await fault.heal(world.site) == "nothing was done to decode-0"
    assert not world.processes.expected
    assert world.processes.generation == 1


async def test_a_restart_that_leaves_the_old_processes_heals_nothing(world: FaultWorld) -> None:
    fault = Kill("decode-0")
    await fault.strike(world.site)
    world.processes.restarts = False
    with pytest.raises(NoEvidence, match="its processes are none"):
        await fault.heal(world.site)


async def test_a_server_that_says_it_was_not_restarted_is_not_healed(world: FaultWorld) -> None:
    world.values["decode-0"] = {"process_start": 1.0}
    fault = Kill("decode-0")
    await fault.prepare(world.site)
    await fault.strike(world.site)
    with pytest.raises(NoEvidence, match="says that it was not restarted"):
        await fault.heal(world.site)


async def test_a_start_that_was_read_of_earlier_processes_is_not_told_of_these(world: FaultWorld) -> None:
    """Another fault may have started the server again while this one waited for its moment."""
    fault = Kill("decode-0")
    await fault.prepare(world.site)
    await world.processes.restart("decode-0")
    await fault.strike(world.site)
    healing = await fault.heal(world.site)
    assert "30, 31 in place of 20, 21" in healing
    assert "process_start" not in healing


async def test_a_server_that_does_not_start_again_is_not_healed(world: FaultWorld) -> None:
    fault = Kill("decode-0")
    await fault.strike(world.site)
    world.processes.fails = "no memory"
    with pytest.raises(NoEvidence, match="decode-0 did not start again: no memory"):
        await fault.heal(world.site)


@pytest.mark.parametrize("fault", [Kill("decode-7"), Drain("decode-7")], ids=["kill", "drain"])
async def test_a_server_that_does_not_exist_is_refused(world: FaultWorld, fault: Fault) -> None:
    with pytest.raises(UsageError, match="no process decode-7; there are decode-0"):
        await fault.strike(world.site)


async def test_a_deployment_that_somebody_else_started_is_not_touched(world: FaultWorld) -> None:
    foreign = Site(world.site.deployment, world.site.clock)
    with pytest.raises(UsageError, match="--prefill-url"):
        await Kill("decode-0").strike(foreign)


@pytest.mark.parametrize("fault", both(), ids=["kill", "drain"])
def test_counters_begin_again_from_zero(fault: Fault) -> None:
    assert Tolerated.RESTART in fault.tolerates
