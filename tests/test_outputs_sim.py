"""Verification from the load to the verdict on the simulated pair: planted damage is found and named, noise is not."""

import re
from collections import Counter

import pytest
from counted_run import DEPLOYMENT
from sim_history import SimRun, load

from harness.checkers.outputs import count_outputs, outputs, owned_outputs, wrong_outputs
from harness.scenario import Route
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import Verdict
from workloads.probe import cache_probe

FLIPS = Noise(flip_rate=0.21)
"""15 % of outputs flipped: not every one has a near tie."""


def served(count: int, *bugs: PlantedBug, seed: int = 0, noise: Noise = FLIPS) -> SimRun:
    run = SimRun(SimPair(SimConfig(bugs=bugs, seed=seed, noise=noise), lambda: 0.0))
    run.run(load(count, seed=seed))
    return run


def test_benign_flips_are_ties_and_no_alarm() -> None:
    flipped = 0
    for seed in range(2):
        history = served(128, seed=seed).verify(seed=seed)
        counts = count_outputs(history)
        assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID
        assert (counts.requests, counts.mismatch, counts.unverified) == (128, 0, 0)
        flipped += counts.tie
    assert 0.1 < flipped / (2 * 128) < 0.2


@pytest.mark.parametrize(
    "bug",
    [
        *("foreign_blocks", "expired_read", "stale_tail", "tail_off_by_one", "flipped_byte", "zeroed_last_block"),
        *("stale_block", "zeroed_layer", "shifted_rows", "swapped_tail", "block_stride", "truncated_region"),
    ],
)
def test_exactly_the_damaged_requests_are_named(bug: str) -> None:
    run = served(48, PlantedBug(bug, 0.15), seed=2)
    history = run.verify(seed=2)
    damaged = {name for name in run.pair.ledger.wrong if "-" not in name.removeprefix("load-")}
    assert damaged, "the bug struck nobody: the test shows nothing"
    assert set(wrong_outputs(history)) == damaged
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID


def test_scaled_kv_is_found_by_drift() -> None:
    run = served(100, PlantedBug("scaled_kv", 0.04), seed=2)
    history = run.verify(seed=2)
    damaged = {name for name in run.pair.ledger.wrong if name.startswith("load-")}
    assert set(wrong_outputs(history)) <= damaged
    assert len(wrong_outputs(history)) >= 0.5 * len(damaged) > 0


def test_foreign_kv_is_named_with_its_owner_and_reported_first() -> None:
    run = served(100, PlantedBug("foreign_blocks", 0.04), PlantedBug("flipped_byte", 0.04), seed=2)
    history = run.verify(seed=2)
    first = outputs(DEPLOYMENT, history).findings[0]
    assert "was answered with load-" in first.text
    owner = first.text.split("with ")[1].split("'s KV")[0]
    prompts = {o.request.request_id: o.request.prompt for o in history.operations(route=Route.PROXY)}
    # The other road: the pair's own arithmetic says what the pulled KV was computed from.
    assert first.subject in run.pair.ledger.wrong
    assert owner in prompts
    assert prompts[owner] != prompts[first.subject]


def test_damage_that_is_nobodys_kv_gets_no_owner() -> None:
    history = served(100, PlantedBug("flipped_byte", 0.05), seed=2).verify(seed=2)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert not any("answered with" in finding.text for finding in check.findings)
    assert all(re.search("; no owner among [1-9][0-9]* other requests$", finding.text) for finding in check.findings)


@pytest.mark.parametrize("bug", ["foreign_blocks", "expired_read"])
def test_every_leak_is_named_with_its_owner(bug: str) -> None:
    """Ten in a run and more: the search for one owner does not end the search for the next."""
    run = served(200, PlantedBug(bug, 0.07), seed=2)
    history = run.verify(seed=2)
    owners = {who: owner for who, owner in run.pair.ledger.owners.items() if who in run.pair.ledger.wrong}
    assert len(owners) >= 10
    assert owned_outputs(history) == owners
    told = {finding.subject: finding.text for finding in outputs(DEPLOYMENT, history).findings}
    assert all(f"was answered with {owner}'s KV" in told[who] for who, owner in owners.items())


def test_swapped_blocks_pass_the_load_and_are_found_by_the_probe() -> None:
    run = served(60, PlantedBug("swapped_blocks", 0.3), seed=4)
    assert outputs(DEPLOYMENT, run.verify(seed=4)).verdict is Verdict.VALID
    run = served(60, PlantedBug("swapped_blocks", 0.3), seed=4)
    run.run(cache_probe(run.history, scenario="load", block_size=16, concurrency=32, seed=1))
    history = run.verify(seed=4)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert all(finding.subject.endswith("-probe-decode") for finding in check.findings)


def test_the_probe_of_a_clean_pair_is_clean_and_reads_the_caches() -> None:
    run = served(60, seed=4)
    hits = run.pair.decode.engine.stats.prefix_hits
    run.run(cache_probe(run.history, scenario="load", block_size=16, concurrency=32))
    assert run.pair.decode.engine.stats.prefix_hits > hits
    history = run.verify(seed=4)
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID
    assert count_outputs(history).requests > 100


def test_a_sample_is_verified_and_the_rest_is_said_to_be_left_out() -> None:
    history = served(300, seed=1).verify("sample:40", seed=1)
    counts, check = count_outputs(history), outputs(DEPLOYMENT, history)
    assert (counts.exact + counts.tie, counts.unverified, check.verdict) == (40, 260, Verdict.VALID)
    assert "260 not sampled" in check.summary
    kinds = Counter(o.sent.phase for o in history.operations())
    assert 32 <= kinds["control"] <= 40


def test_a_suspect_is_measured_again_before_it_is_accused() -> None:
    history = served(100, PlantedBug("flipped_byte", 0.05), seed=2).verify(seed=2)
    wrong = set(wrong_outputs(history))
    again = [o for o in history.operations() if o.sent.phase == "confirmation"]
    assert {o.request.reference_for for o in again} == wrong
    assert {o.request.route for o in again} == {Route.DECODE}
