"""Blocks that a fault left to their lease are nobody's leak, and whoever waits for them does not hang."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers.completion import completion
from harness.checkers.drained import left_hanging
from harness.checkers.faults import faults
from harness.checkers.settled import settled
from harness.checkers.windows import windows
from harness.facts import Connector, Deployment
from harness.history import (
    Ended,
    Ending,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    Outcome,
    Scraped,
    Sent,
    Tolerated,
)
from harness.verdict import Verdict

LEASES = (30.0, 90.0, 480.0)
LAST_END, HEALED = 2.0, 10.0
"""When the run's last request of the load ended, and when its fault was undone; seconds."""


def leased(lease: float | None) -> Deployment:
    return run.DEPLOYMENT.with_servers(lease=lease)


def held(server: str, after: float, *more: Entry) -> History:
    """A run after which this server holds 2 % of its blocks, seen so many seconds after the last request's end."""
    values = {"prefill": run.PREFILL, "decode": run.DECODE}
    role = server.split("-", maxsplit=1)[0]
    values[role] = values[role] | {"kv_usage": 0.02}
    readings = [
        replace(one, at=LAST_END + after) if one.label == "after" else one
        for one in run.readings(values["prefill"], values["decode"])
    ]
    return run.history(readings, None, *more)


def fault(lease: float = 30.0, kind: str = "kill") -> list[Entry]:
    planned = FaultPlanned(
        0.1, "kill-1", kind, "decode-0", "end decode-0", tuple(Tolerated), "cold", "load", recovery_s=lease + 30
    )
    return [
        planned,
        FaultBegan(0.9, "kill-1"),
        FaultProved(0.9, "kill-1", "it has ended"),
        FaultHealed(HEALED, "kill-1", healed=True, text="it answers"),
    ]


@pytest.mark.parametrize("lease", LEASES)
def test_blocks_within_their_lease_are_not_leaked(lease: float) -> None:
    found = settled(leased(lease), held("prefill-0", lease))
    assert found.verdict is Verdict.UNKNOWN
    assert f"lease of {lease:.0f} s" in found.summary
    assert f"--settle-timeout-sec {lease + 15:.0f}" in found.summary


@pytest.mark.parametrize("lease", LEASES)
def test_blocks_beyond_their_lease_are_leaked(lease: float) -> None:
    found = settled(leased(lease), held("prefill-0", lease + 16))
    assert found.verdict is Verdict.INVALID
    assert "leaked" in found.summary


@pytest.mark.parametrize("lease", LEASES)
def test_a_lease_may_begin_when_a_fault_is_undone(lease: float) -> None:
    """A stopped prefill server finishes a request, and its lease begins, when it goes on."""
    assert settled(leased(lease), held("prefill-0", lease + 16, *fault(lease))).verdict is Verdict.UNKNOWN
    late = held("prefill-0", HEALED - LAST_END + lease + 16, *fault(lease))
    assert settled(leased(lease), late).verdict is Verdict.INVALID


def test_blocks_whose_lease_is_not_known_are_not_said_to_be_leaked() -> None:
    found = settled(leased(None), held("prefill-0", 1000))
    assert found.verdict is Verdict.UNKNOWN
    assert "VLLM_SERVER_DEV_MODE=1" in found.summary


def test_decode_and_servers_without_nixl_hold_blocks_under_no_lease() -> None:
    assert settled(leased(480), held("decode-0", 20)).verdict is Verdict.INVALID
    alone = leased(None).with_servers(connectors=(Connector.OFFLOADING,))
    assert settled(alone, held("prefill-0", 20)).verdict is Verdict.INVALID


def later(sent: float, ended: float, **end: object) -> list[Entry]:
    """A request of the load that the fault may still have kept waiting, or that was sent after it."""
    first, last = run.operation(replace(run.request(0), request_id="later"), "later")
    assert isinstance(last, Ended)
    no_answer = {"choices": (), "usage": None, "token_times": (), "tokens_per_chunk": (), "outcome": Outcome.INFO}
    changed = replace(last, at=ended, **{**no_answer, "cause": "it failed", **end})  # type: ignore[arg-type]
    return [replace(first, at=sent, intended_at=sent), changed]


TIMED_OUT = {"status": None, "ending": Ending.TIMED_OUT}
REFUSED = {"status": 502, "ending": Ending.REFUSED}


def under_fault(lease: float, *entries: Entry) -> History:
    return run.history(None, None, *fault(lease), *entries)


@pytest.mark.parametrize("lease", LEASES)
def test_a_request_that_timed_out_before_the_lease_could_end_does_not_hang(lease: float) -> None:
    gave_up = under_fault(lease, *later(9.0, HEALED + lease, **TIMED_OUT))
    assert completion(leased(lease), gave_up).verdict is Verdict.UNKNOWN
    hung = under_fault(lease, *later(9.0, HEALED + lease + 16, **TIMED_OUT))
    assert completion(leased(lease), hung).verdict is Verdict.INVALID


@pytest.mark.parametrize("lease", LEASES)
def test_a_deployment_may_recover_when_the_leases_have_ended(lease: float) -> None:
    """Prefill's pool is held for requests that nobody fetches any more: new ones are refused until the lease ends."""
    waiting = later(HEALED + lease - 1, HEALED + lease - 0.5, **REFUSED)
    assert faults(leased(lease), under_fault(lease, *waiting)).verdict is Verdict.UNKNOWN
    assert completion(leased(lease), under_fault(lease, *waiting)).verdict is Verdict.VALID
    never = later(HEALED + lease + 1, HEALED + lease + 2, **REFUSED)
    assert faults(leased(lease), under_fault(lease, *never)).verdict is Verdict.INVALID


@pytest.mark.parametrize("lease", LEASES)
def test_a_request_that_completes_when_the_leases_have_ended_shows_the_recovery(lease: float) -> None:
    served = run.operation(replace(run.request(0), request_id="later"), "later")
    at = HEALED + lease + 10
    moved = [replace(served[0], at=at, intended_at=at), replace(served[1], at=at + 1)]
    [window] = windows(under_fault(lease, *moved))
    assert window.recovered_after == lease + 11


def drained(lease: float, *before: Entry) -> History:
    """Prefill is drained; a request that it never began waits until it is killed 30 s later."""
    drain = [
        FaultPlanned(0.1, "drain-1", "drain", "prefill-0", "end it", (), "cold", "load", recovery_s=lease + 30),
        FaultBegan(50.0, "drain-1"),
        FaultProved(80.0, "drain-1", "it did not end by itself"),
        FaultHealed(90.0, "drain-1", healed=True, text="it answers"),
    ]
    waiting = later(49.0, 80.0, status=502, ending=Ending.REFUSED, prefill_server="http://p")
    return run.history(None, None, *before, *drain, *waiting)


def names(lease: float, *before: Entry) -> list[str]:
    history = drained(lease, *before)
    window = windows(history)[-1]
    return [one.request.request_id for one in left_hanging(leased(lease), history, window)]


def test_a_drained_server_may_keep_requests_waiting_for_leases_of_an_earlier_fault() -> None:
    assert names(30.0) == ["later"]
    assert names(90.0, *fault(90.0)) == []
    assert names(30.0, *fault(30.0)) == ["later"], "the leases had ended when it was drained"


def test_so_may_one_whose_clients_left() -> None:
    left: list[Entry] = []
    for entry in later(20.0, 45.0, status=None, ending=Ending.LEFT):
        changes = {"request": replace(entry.request, request_id="left")} if isinstance(entry, Sent) else {}
        left.append(replace(entry, **changes, **({"request_id": "left"} if isinstance(entry, Ended) else {})))  # type: ignore[arg-type]
    assert names(30.0, *left) == []


def test_readings_of_the_tests_are_late_enough() -> None:
    assert all(one.at > 50 for one in run.readings() if isinstance(one, Scraped) and one.label == "after")
