"""Verification from the load to the verdict on the simulated pair: planted damage is found and named, noise is not."""

import re
from collections import Counter
from dataclasses import replace

import counted_run
import pytest
from sim_history import SimRun, load

from harness.history import Ended, History, Operation, Sent
from harness.scenario import Condition, Route
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import FindingKind, Verdict
from harness.verify.judging import count_outputs, look_at_outputs, outputs, owned_outputs, wrong_outputs
from harness.verify.judging.caches import coverage
from harness.verify.judging.hits import Hits

DEPLOYMENT = replace(
    counted_run.DEPLOYMENT, servers=tuple(replace(one, block_size=16) for one in counted_run.DEPLOYMENT.servers)
)
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
    damaged = {name for name in run.pair.ledger.wrong if name.count("-") == 1}
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
    assert all(re.search("; no owner among [1-9][0-9]* other requests", finding.text) for finding in check.findings)


def test_damage_that_strikes_at_random_does_not_happen_again() -> None:
    history = served(100, PlantedBug("zeroed_layer", 0.01), seed=6).verify(seed=6)
    (finding,) = outputs(DEPLOYMENT, history).findings
    assert (
        "; in decode-0's cache block 1 of its prompt is the first wrong one; it did not happen again in 36"
        in finding.text
    )
    assert {o.request.route for o in history.operations(phase="retry-alone")} == {Route.PROXY}
    assert len({o.request.cache_salt for o in history.operations(phase="retry-together")}) == 32


def test_damage_that_strikes_often_happens_again() -> None:
    """Which requests are struck is drawn from their ids: of the retries as many as of the load."""
    run = served(32, PlantedBug("zeroed_layer", 0.3), seed=3)
    history = run.verify(seed=3)
    told = [
        finding.text
        for finding in outputs(DEPLOYMENT, history).findings
        if "retries" in finding.text or "wrong again" in finding.text
    ]
    assert len(told) == 3
    struck = [o for o in history.operations(phase="retry-alone") if o.request.request_id in run.pair.ledger.wrong]
    counts = [re.search(r"wrong again in (\d+) of 10 under load and (\d+) of 4 alone", text) for text in told]
    assert sum(int(count[2]) for count in counts if count) == len(struck) > 0


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
    history = run.verify(seed=4)
    assert not wrong_outputs(history)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert {(one.kind, one.server) for one in check.findings} == {(FindingKind.CACHE, "decode-0")}


def read_from(server: str, asked: int, possible: int) -> str:
    return (
        f"asked {server}'s cache for {asked:,} of {possible:,} prefixes of prompts: "
        "all of them are shown to be read from there"
    )


def probes(history: History, route: Route) -> list[Operation]:
    return [o for o in history.operations(route=route) if o.sent.phase == f"probe-{route}"]


def test_a_budget_probes_some_of_the_cuts_and_says_how_many() -> None:
    run = served(400, seed=4)
    check = outputs(DEPLOYMENT, run.verify("budget:10", seed=4))
    cuts = sum((len(o.request.prompt) - 1) // 16 for o in run.history.operations(phase="load"))
    assert cuts > 1024
    assert check.verdict is Verdict.VALID
    assert read_from("decode-0", 1024, cuts) in check.notes


def test_every_prompt_whose_neighbouring_blocks_changed_places_is_found_at_its_one_telling_cut() -> None:
    run = served(500, PlantedBug("swapped_blocks", 0.02), seed=4)
    history = run.verify("all", seed=4)
    struck = set(run.pair.ledger.struck["swapped_blocks"])
    assert len(struck) == 4
    check = outputs(DEPLOYMENT, history)
    assert {finding.request for finding in check.findings} == struck
    assert {(one.kind, one.server, one.block) for one in check.findings} == {(FindingKind.CACHE, "decode-0", 1)}
    assert all("block 1 there is the first wrong one" in finding.text for finding in check.findings)
    assert not wrong_outputs(history)


def test_the_probe_of_a_clean_pair_is_clean_reads_the_caches_and_says_how_much_of_them() -> None:
    run = served(60, seed=4)
    hits = run.pair.decode.engine.stats.prefix_hits
    history = run.verify(seed=4)
    cuts = sum((len(o.request.prompt) - 1) // 16 for o in history.operations(phase="load"))
    hits = run.pair.decode.engine.stats.prefix_hits - hits
    assert hits >= sum(len(o.request.prompt) - 1 for o in probes(history, Route.DECODE))
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    assert read_from("decode-0", cuts, cuts) in check.notes
    assert read_from("prefill-0", 64, cuts) in check.notes
    assert count_outputs(history).requests == 60
    assert not history.operations(phase="doubts")


def test_a_tier_that_was_given_garbage_is_found_when_the_prefix_caches_are_emptied() -> None:
    run = served(60, PlantedBug("offload_stores_wrong", 0.1), seed=4)
    history = run.verify(seed=4)
    struck = run.pair.ledger.struck["offload_stores_wrong"]
    named = {finding.request for finding in outputs(DEPLOYMENT, history).findings}
    assert struck
    loads = {name for name in struck if name.count("-") == 1}
    assert named == loads
    assert all("so in prefill-0's offload tier" in one.text for one in outputs(DEPLOYMENT, history).findings)
    assert all(server.engine.stats.external_hits_by_tier["host"] for server in run.pair.servers)


def test_a_tier_that_restored_nothing_is_not_said_to_be_read() -> None:
    """Its probes were computed anew: right answers say nothing about what it holds."""
    run = served(60, seed=4)
    evidence = look_at_outputs(run.verify(seed=4))
    tier = [o for o in run.history.operations() if o.request.condition is Condition.OFFLOAD_TIER]
    asked = sum(o.request.route is Route.PREFILL for o in tier)
    nothing = Hits(Condition.OFFLOAD_TIER, "prefill-0", asked, 0, 900, restored=0, why="900 tokens were computed anew")
    (line,) = coverage(evidence, [nothing], {"prefill-0": 300})
    assert "none of them is shown to be read from there (900 tokens were computed anew)" in line
    assert line.endswith("it restored nothing")


def test_a_tier_that_cannot_be_asked_is_said_to_be_so() -> None:
    run = served(60, seed=4)
    run.reset_status = 404
    check = outputs(DEPLOYMENT, history := run.verify(seed=4))
    assert check.verdict is Verdict.VALID
    assert "decode-0's offload tier was not asked (its prefix cache could not be emptied: HTTP 404" in " ".join(
        check.notes
    )
    assert not [o for o in history.operations() if o.sent.phase.endswith("-tier")]


def test_cuts_of_prompts_that_are_not_forced_are_judged_by_the_prefill_servers_answers() -> None:
    history = served(300, seed=1).verify("sample:40", seed=1)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    decode, prefill = (probes(history, route) for route in (Route.DECODE, Route.PREFILL))
    assert len(decode) > len(prefill) > 0.8 * len(decode)
    assert read_from("decode-0", len(decode), len(decode)) in check.notes


def test_a_probe_that_nothing_can_judge_is_left_out_and_not_counted() -> None:
    history = served(60, seed=4).verify(seed=4)
    lost = next((len(o.request.prompt) - 1) // 16 for o in history.operations() if o.request.request_id == "load-00007")
    assert lost
    blind = [
        e
        for e in history.entries
        if not isinstance(e, Sent | Ended)
        or not _name(e).startswith(("load-00007-teacher", "load-00007-probe-prefill"))
    ]
    check = outputs(DEPLOYMENT, History(tuple(blind)))
    cuts = sum((len(o.request.prompt) - 1) // 16 for o in history.operations(phase="load"))
    (note,) = (one for one in check.notes if "decode-0's cache" in one)
    assert f"at least {cuts - lost} of them are shown to be read from there" in note
    assert f"{lost} of them nothing could judge" in note
    assert check.verdict is Verdict.VALID


def test_a_doubt_that_could_not_be_settled_is_unknown_and_no_accusation() -> None:
    history = served(60, PlantedBug("swapped_blocks", 0.3), seed=4).verify(seed=4)
    assert history.operations(phase="doubts")
    unforced = [
        e
        for e in history.entries
        if not (isinstance(e, Sent) and e.phase == "doubts")
        and not (isinstance(e, Sent | Ended) and "-probe-" in _name(e) and "-teacher" in _name(e))
    ]
    check = outputs(DEPLOYMENT, History(tuple(unforced)))
    assert check.verdict is Verdict.UNKNOWN
    assert all("-probe-decode-" in finding.subject for finding in check.findings)


def _name(entry: Sent | Ended) -> str:
    return entry.request.request_id if isinstance(entry, Sent) else entry.request_id


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
    assert wrong <= {o.request.about for o in again}
    assert {o.request.route for o in again} == {Route.DECODE}
