"""Counts above this run's requests are attributed to other people; differences that they cannot explain are invalid."""

from collections.abc import Mapping
from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge
from harness.checkers.failed_transfers import failed_transfers
from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.offload_bytes import offload_bytes
from harness.checkers.settled import settled
from harness.checkers.token_sources import token_sources
from harness.history import Entry, History, Outcome, Scraped
from harness.scenario import Request, Route, Sampling
from harness.verdict import Verdict

ATTACHED = replace(run.DEPLOYMENT, launched=False)
PROBE = {"prompt": 30, "compute": 30, "generated": 3, "prefix_queries": 30, "external_queries": 30}
"""Other people's requests to one server: 30 prompt tokens, computed there."""
PULLED = {
    "prompt": 100,
    "external": 100,
    "generated": 4,
    "prefix_queries": 100,
    "external_queries": 100,
    "external_hits": 100,
    "nixl": 2 * run.BLOCK,
    "reads": 1,
    "store": run.BLOCK,
    "store_legacy": run.BLOCK,
}
"""One of their requests through a proxy, as D counts it."""


def plus(clean: Mapping[str, float], *more: Mapping[str, float]) -> dict[str, float]:
    return dict(clean) | {name: clean[name] + sum(one.get(name, 0) for one in more) for one in more for name in one}


def seen(decode: Mapping[str, float] = run.DECODE, prefill: Mapping[str, float] = run.PREFILL) -> History:
    return run.history(run.readings(prefill, decode), _operations())


def _operations() -> tuple[Entry, ...]:
    return tuple(entry for n in range(2) for entry in run.operation(run.request(n, cache_salt="this run's")))


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_other_peoples_requests_make_the_servers_counters_unknown_and_are_named(role: str) -> None:
    clean = run.PREFILL if role == "prefill" else run.DECODE
    check = token_sources(ATTACHED, seen(**{role: plus(clean, PROBE)}))
    assert check.verdict is Verdict.UNKNOWN
    assert f"{role}-0 counted 30 prompt tokens more than this run's requests have" in check.summary
    assert "somebody else uses this server" in check.summary


def test_other_peoples_transfers_make_bytes_and_stores_unknown() -> None:
    judgement = judge(ATTACHED, seen(plus(run.DECODE, PULLED)))
    verdicts = {check.name: check.verdict for check in judgement.checks}
    for name in ("token_sources", "nixl_bytes", "offload_bytes"):
        assert verdicts[name] is Verdict.UNKNOWN, name
    assert judgement.verdict is Verdict.UNKNOWN


def test_higher_counts_of_a_launched_deployment_are_invalid() -> None:
    assert token_sources(run.DEPLOYMENT, seen(plus(run.DECODE, PROBE))).verdict is Verdict.INVALID


def test_a_silent_recompute_is_invalid_beside_other_peoples_requests() -> None:
    recomputed = run.DECODE | {"external": 128, "external_hits": 128, "compute": 100}
    assert token_sources(ATTACHED, seen(recomputed)).verdict is Verdict.INVALID
    assert token_sources(ATTACHED, seen(plus(recomputed, PROBE))).verdict is Verdict.INVALID


def test_others_explain_at_most_as_many_computed_tokens_as_their_prompts_have() -> None:
    for compute, verdict in ((30, Verdict.UNKNOWN), (31, Verdict.INVALID)):
        decode = plus(run.DECODE, PROBE) | {"compute": compute}
        parts = {
            one.counter: one.verdict
            for one in token_sources(ATTACHED, seen(decode)).comparisons
            if "decode" in one.server
        }
        assert parts["local_compute"] is verdict


def test_lower_counts_are_invalid() -> None:
    few = plus(run.DECODE, PROBE) | {"nixl": 3 * run.BLOCK}
    assert nixl_bytes(ATTACHED, seen(few)).verdict is Verdict.INVALID
    unasked = plus(run.DECODE, PROBE) | {"external_queries": 200}
    assert token_sources(ATTACHED, seen(unasked)).verdict is Verdict.INVALID


def test_more_bytes_than_their_tokens_can_have_are_invalid() -> None:
    for blocks, verdict in ((4 + 60, Verdict.UNKNOWN), (4 + 61, Verdict.INVALID)):
        many = plus(run.DECODE, PROBE) | {"nixl": blocks * run.BLOCK}
        assert {
            one.counter: one.verdict for one in nixl_bytes(ATTACHED, seen(many)).comparisons if "decode" in one.server
        }["nixl_bytes"] is verdict


def test_sources_that_do_not_add_up_are_invalid() -> None:
    odd = plus(run.DECODE, PROBE) | {"compute": 29}
    check = token_sources(ATTACHED, seen(odd))
    assert {one.counter: one.verdict for one in check.comparisons if "decode" in one.server}[
        "sum over sources"
    ] is Verdict.INVALID


def test_a_cancelled_request_of_others_is_looked_up_but_not_counted() -> None:
    given_up = plus(run.DECODE, {"prefix_queries": 500, "external_queries": 500})
    check = token_sources(ATTACHED, seen(given_up))
    assert check.verdict is Verdict.UNKNOWN
    assert "decode-0 looked up 500 tokens more than this run's requests have" in check.summary


def test_a_failed_transfer_may_be_theirs() -> None:
    failed = {"failed": 1}
    assert failed_transfers(ATTACHED, seen(plus(run.DECODE, failed))).verdict is Verdict.INVALID
    assert failed_transfers(ATTACHED, seen(plus(run.DECODE, failed, PROBE))).verdict is Verdict.UNKNOWN


def test_blocks_still_held_may_be_theirs() -> None:
    held = {"kv_usage": 0.25}
    assert settled(ATTACHED, seen(plus(run.DECODE, held))).verdict is Verdict.INVALID
    check = settled(ATTACHED, seen(plus(run.DECODE, held, PROBE)))
    assert check.verdict is Verdict.UNKNOWN
    assert "somebody else uses" in check.summary


def test_a_gauge_that_cannot_be_read_proves_no_leak() -> None:
    held = run.DECODE | {"kv_usage": 0.25, "running": float("nan")}
    assert settled(run.DEPLOYMENT, seen(held)).verdict is not Verdict.INVALID


def later(decode_end: Mapping[str, float], prefill_end: Mapping[str, float], first: Mapping[str, float]) -> History:
    """A history with a second phase of the first prompt again: D finds its first block unless it was evicted."""
    phases = [
        *run.readings(run.PREFILL, first),
        *(
            replace(run.reading(server, label, values), phase="again")
            for label, pair in (("before", (run.PREFILL, first)), ("after", (prefill_end, decode_end)))
            for server, values in zip(("prefill-0", "decode-0"), pair, strict=True)
        ),
    ]
    asked = replace(run.request(0, cache_salt="this run's"), request_id="again")
    sent, ended = run.operation(asked, "again")
    return History((*phases, *_operations(), sent, ended))


AGAIN_P = {
    "prompt": 100,
    "compute": 36,
    "hit": 64,
    "generated": 1,
    "prefix_queries": 100,
    "prefix_hits": 64,
    "external_queries": 36,
}
AGAIN_D = {
    "prompt": 100,
    "external": 36,
    "external_hits": 36,
    "hit": 64,
    "generated": 5,
    "prefix_queries": 100,
    "prefix_hits": 64,
    "external_queries": 36,
    "nixl": run.BLOCK,
    "reads": 1,
}
EVICTED_D = AGAIN_D | {
    "external": 100,
    "external_hits": 100,
    "hit": 0,
    "prefix_hits": 0,
    "external_queries": 100,
    "nixl": 2 * run.BLOCK,
}


def test_misses_in_later_phases_are_unknown_after_other_peoples_requests_and_invalid_without() -> None:
    prefill = plus(run.PREFILL, AGAIN_P)
    quiet = later(plus(run.DECODE, AGAIN_D), prefill, run.DECODE)
    assert token_sources(ATTACHED, quiet).verdict is Verdict.VALID, token_sources(ATTACHED, quiet).summary
    missed = later(plus(run.DECODE, EVICTED_D), prefill, run.DECODE)
    assert token_sources(ATTACHED, missed).verdict is Verdict.INVALID
    busy = plus(run.DECODE, PROBE)
    evicted = token_sources(ATTACHED, later(plus(busy, EVICTED_D), prefill, busy))
    assert evicted.verdict is Verdict.UNKNOWN
    of_again = [one for one in evicted.comparisons if one.phase == "again" and one.verdict is Verdict.UNKNOWN]
    assert {"local_cache_hit", "external_kv_transfer"} <= {one.counter for one in of_again}
    assert "may have evicted" in of_again[0].why_unknown


def test_a_request_with_unknown_outcome_is_not_taken_for_other_peoples() -> None:
    timed_out = run.operation(
        run.request(1, cache_salt="this run's"), outcome=Outcome.INFO, status=None, cause="timeout"
    )
    history = run.history(operations=(*_operations()[:2], *timed_out))
    assert not any(one.explained for one in token_sources(ATTACHED, history).comparisons)


def test_their_offloaded_bytes_are_unknown_and_too_many_are_invalid() -> None:
    for blocks, verdict in ((2, Verdict.UNKNOWN), (10, Verdict.INVALID)):
        more = {"store": blocks * run.BLOCK, "store_legacy": blocks * run.BLOCK}
        theirs = PROBE | {"prompt": 130, "compute": 130, "prefix_queries": 130, "external_queries": 130}
        assert offload_bytes(ATTACHED, seen(plus(run.DECODE, theirs, more))).verdict is verdict


def test_others_may_have_evicted_blocks_between_counted_phases() -> None:
    quiet, busy = plus(run.DECODE, REFERENCE), plus(run.DECODE, REFERENCE, PROBE)
    for before, verdict in ((quiet, Verdict.INVALID), (busy, Verdict.UNKNOWN)):
        check = token_sources(ATTACHED, _after_an_uncounted_phase(before))
        parts = {one.counter: one.verdict for one in check.comparisons if (one.phase, one.server) == AGAIN_ON_D}
        assert parts["local_cache_hit"] is verdict
        assert parts["prompt_tokens"] is Verdict.VALID


AGAIN_ON_D = ("again", "decode-0")
REFERENCE = {"prompt": 50, "compute": 50, "generated": 5, "prefix_queries": 50, "external_queries": 50}
"""Counters of this run's own requests to D in the uncounted phase."""


def _after_an_uncounted_phase(before: Mapping[str, float]) -> History:
    """Between two counted phases D answers a reference; after that it misses a block that it should find."""
    reference = Request("ref", tuple(range(7000, 7050)), Sampling(max_tokens=5), route=Route.DECODE, cache_salt="other")
    sent, ended = run.operation(reference, "reference")
    asked = replace(run.request(0, cache_salt="this run's"), request_id="again")
    later_sent, later_ended = run.operation(asked, "again")
    first = later(plus(before, EVICTED_D), plus(run.PREFILL, AGAIN_P), run.DECODE).entries
    readings = [one for one in first if isinstance(one, Scraped)]
    opened = [
        replace(run.reading("prefill-0", "before", run.PREFILL), phase="again", at=5.0),
        replace(run.reading("decode-0", "before", before), phase="again", at=5.0),
    ]
    timed = [replace(one, at=2.5) for one in readings[:4]] + opened + [replace(one, at=9.0) for one in readings[6:]]
    again = (replace(later_sent, at=6.0, intended_at=6.0), replace(later_ended, at=7.0))
    return History((*timed, *_operations(), sent, ended, *again))


def test_additional_prefix_lookups_without_external_ones_are_a_fault() -> None:
    doubled = run.DECODE | {"prefix_queries": 2 * run.DECODE["prefix_queries"]}
    assert token_sources(ATTACHED, seen(doubled)).verdict is Verdict.INVALID
    given_up = plus(run.DECODE, {"prefix_queries": 50, "external_queries": 50})
    assert token_sources(ATTACHED, seen(given_up)).verdict is Verdict.UNKNOWN


def test_a_cancelled_request_shows_in_the_connectors_if_there_is_no_prefix_cache() -> None:
    uncached = ATTACHED.with_servers(prefix_caching=False)
    decode, prefill = (clean | {"prefix_queries": 0} for clean in (run.DECODE, run.PREFILL))
    assert token_sources(uncached, seen(decode, prefill)).verdict is Verdict.VALID
    given_up = plus(decode, {"external_queries": 50})
    assert token_sources(uncached, seen(given_up, prefill)).verdict is Verdict.UNKNOWN
    assert token_sources(ATTACHED, seen(plus(run.DECODE, {"external_queries": 50}))).verdict is Verdict.INVALID
