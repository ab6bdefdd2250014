"""Clients that left as planned are nobody's failure, and excuse nothing that happens to other requests."""

from dataclasses import replace
from typing import Any

import counted_run as run
import pytest

from harness.checkers.completion import completion
from harness.checkers.failed_transfers import failed_transfers
from harness.checkers.settled import settled
from harness.checkers.token_sources import token_sources
from harness.history import Choice, Ending, Entry, History, Outcome
from harness.load.latency.statistics import latency_report
from harness.scenario import Moment
from harness.verdict import Verdict

LEFT: dict[str, Any] = {
    "outcome": Outcome.INFO,
    "ending": Ending.LEFT,
    "status": None,
    "choices": (),
    "usage": None,
    "token_times": (),
    "tokens_per_chunk": (),
}
CUT = LEFT | {"ending": Ending.CUT}
WITHOUT_SECOND = {"prompt": 100, "generated": 5, "prefix_queries": 100, "external_queries": 100, "store": run.BLOCK}
PREFILL = run.PREFILL | WITHOUT_SECOND | {"compute": 100, "generated": 1, "store_legacy": run.BLOCK}
DECODE = run.DECODE | WITHOUT_SECOND | {"external": 100, "external_hits": 100, "nixl": 2 * run.BLOCK, "reads": 1}
DECODE |= {"store_legacy": run.BLOCK}


def seen(
    end: dict[str, Any], prefill: dict[str, float] | None = None, decode: dict[str, float] | None = None
) -> History:
    """A run whose first request was served, and whose second one ended in this way."""
    second = run.operation(run.request(1, leaves=Moment.FIRST_TOKEN), **end)
    operations: tuple[Entry, ...] = (*run.operation(run.request(0)), *second)
    return run.history(run.readings(PREFILL | (prefill or {}), DECODE | (decode or {})), operations)


def test_a_client_that_left_is_not_counted_as_failed() -> None:
    check = completion(run.DEPLOYMENT, seen(LEFT))
    assert check.verdict is Verdict.VALID
    assert check.summary == "1 of 1 requests completed, the clients of 1 others left as planned"
    assert not check.findings


def test_a_run_in_which_all_left_is_unknown() -> None:
    operations = (*run.operation(run.request(0), **LEFT), *run.operation(run.request(1), **LEFT))
    assert completion(run.DEPLOYMENT, run.history(None, operations)).verdict is Verdict.UNKNOWN


def test_a_client_that_was_to_leave_and_was_cut_off_before_counts() -> None:
    check = completion(run.DEPLOYMENT, seen(CUT | {"status": 200, "choices": (Choice((7,)),)}))
    assert check.verdict is Verdict.INVALID


@pytest.mark.parametrize("rules", ["", "its layers are of a kind that is not known"])
@pytest.mark.parametrize("served", [False, True])
def test_servers_may_have_done_all_or_nothing_of_what_was_left(served: bool, rules: str) -> None:
    whole = ({"prompt": 228, "compute": 228}, {"prompt": 228, "external": 228, "external_hits": 228})
    queried = {"prefix_queries": 228, "external_queries": 228}
    history = seen(LEFT, *(one | queried for one in whole)) if served else seen(LEFT)
    check = token_sources(replace(run.DEPLOYMENT, cache_rules_unknown=rules), history)
    assert check.verdict is Verdict.VALID


def test_servers_may_not_have_done_more_than_all() -> None:
    more = {"prompt": 300, "compute": 300, "prefix_queries": 300, "external_queries": 300}
    assert token_sources(run.DEPLOYMENT, seen(LEFT, more)).verdict is Verdict.INVALID


@pytest.mark.parametrize(("counter", "most"), [("expired", 1), ("late", 1), ("failed", 3)])
def test_the_transfer_of_what_was_left_may_fail_or_expire(counter: str, most: int) -> None:
    """A failed transfer may be counted for its handshake, its read and its notification."""
    check = failed_transfers(run.DEPLOYMENT, seen(LEFT, {counter: most}))
    assert check.verdict is Verdict.VALID
    assert check.summary.endswith("as the faults of the run explain")
    assert failed_transfers(run.DEPLOYMENT, seen(LEFT, {counter: most + 1})).verdict is Verdict.INVALID
    assert failed_transfers(run.DEPLOYMENT, seen(CUT, {counter: 1})).verdict is Verdict.INVALID


@pytest.mark.parametrize(("end", "verdict"), [(LEFT, Verdict.INVALID), (CUT, Verdict.UNKNOWN)])
def test_servers_must_stop_working_for_a_client_that_left(end: dict[str, Any], verdict: Verdict) -> None:
    history = seen(end)
    busy = [*run.readings(PREFILL, DECODE)]
    busy[-1] = run.reading("decode-0", "after", DECODE | {"running": 1}, settled=False, unsettled_because="1 running")
    operations = tuple(entry for one in history.operations()[:2] for entry in (one.sent, one.ended))
    assert settled(run.DEPLOYMENT, run.history(busy, operations)).verdict is verdict


def test_blocks_of_a_client_that_left_must_be_freed() -> None:
    check = settled(run.DEPLOYMENT, seen(LEFT, {"kv_usage": 0.02}))
    assert check.verdict is Verdict.INVALID
    assert "2.00% of its KV blocks are still held" in check.summary


def test_latencies_count_no_client_that_left_as_failed() -> None:
    operations = seen(LEFT).operations()[:2]
    assert latency_report(operations).failed == 0
    assert latency_report(seen(CUT).operations()[:2]).failed == 1


@pytest.mark.parametrize(
    "end",
    [
        pytest.param({"ending": Ending.TIMED_OUT}, id="the client gave up"),
        pytest.param({"ending": Ending.INTERRUPTED}, id="the run was interrupted"),
        pytest.param({"ending": Ending.CLIENT_CRASHED}, id="a worker was lost"),
        pytest.param({"ending": Ending.REFUSED, "status": 507}, id="the proxy had no more files"),
        pytest.param({"ending": Ending.REFUSED, "status": 429}, id="a rate limit"),
    ],
)
@pytest.mark.parametrize(("counter", "most"), [("expired", 1), ("late", 1), ("failed", 3)])
def test_what_ended_by_nobodys_fault_may_leave_blocks_to_their_lease(
    end: dict[str, Any], counter: str, most: int
) -> None:
    check = failed_transfers(run.DEPLOYMENT, seen(LEFT | end, {counter: most}))
    assert check.verdict is Verdict.UNKNOWN, check.summary
    assert failed_transfers(run.DEPLOYMENT, seen(LEFT | end, {counter: most + 1})).verdict is Verdict.INVALID
    assert failed_transfers(run.DEPLOYMENT, seen(LEFT | end)).verdict is Verdict.VALID


def test_what_a_server_refused_explains_no_expiry() -> None:
    refused = LEFT | {"ending": Ending.REFUSED, "status": 500}
    assert failed_transfers(run.DEPLOYMENT, seen(refused, {"expired": 1})).verdict is Verdict.INVALID
