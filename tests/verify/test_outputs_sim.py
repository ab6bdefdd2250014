"""Verification on the simulated pair, from the load to the verdict: planted damage is reported, noise is not."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import counted_run
import pytest
from sim_history import SimRun, load

from harness.history import Ended, History, Operation, Sent
from harness.scenario import Condition, Purpose, Route
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.sim.noise import QUIET
from harness.verdict import FindingKind, Verdict
from harness.verify.judging import count_outputs, look_at_outputs, outputs, owned_outputs, wrong_outputs
from harness.verify.judging.cache_findings import probe_coverage
from harness.verify.judging.hits import Hits

DEPLOYMENT = replace(
    counted_run.DEPLOYMENT, servers=tuple(replace(one, block_size=16) for one in counted_run.DEPLOYMENT.servers)
)
FLIPS = Noise(flip_rate=0.21)
"""Flips 15 % of the outputs: not every output has a near tie."""


def served(count: int, *bugs: PlantedBug, seed: int = 0, noise: Noise = FLIPS) -> SimRun:
    run = SimRun(SimPair(SimConfig(bugs=bugs, seed=seed, noise=noise), lambda: 0.0))
    run.run(load(count, seed=seed))
    return run


# Several tests check the same run.
@cache
def verified(count: int, *bugs: PlantedBug, seed: int, policy: str = "all") -> History:
    return served(count, *bugs, seed=seed).verify(policy, seed=seed)


@pytest.mark.slow
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
        "foreign_blocks",
        "zeroed_last_block",
        *(
            pytest.param(bug, marks=pytest.mark.slow)
            for bug in (
                *("expired_read", "stale_tail", "tail_off_by_one", "flipped_byte", "stale_block", "zeroed_layer"),
                *("shifted_rows", "swapped_tail", "block_stride", "truncated_region"),
            )
        ),
    ],
)
def test_exactly_the_damaged_requests_are_named(bug: str) -> None:
    run = served(48, PlantedBug(bug, 0.15), seed=2)
    history = run.verify(seed=2)
    damaged = {name for name in run.pair.ledger.wrong if "-" not in name.removeprefix("load-")}
    assert damaged, "the bug damaged no request: the test shows nothing"
    assert set(wrong_outputs(history)) == damaged
    assert outputs(DEPLOYMENT, history).verdict is Verdict.INVALID


@pytest.mark.slow
def test_scaled_kv_is_found_by_drift() -> None:
    run = served(100, PlantedBug("scaled_kv", 0.04), seed=2)
    history = run.verify(seed=2)
    damaged = {name for name in run.pair.ledger.wrong if name.count("-") == 1}
    assert set(wrong_outputs(history)) <= damaged
    assert len(wrong_outputs(history)) >= 0.5 * len(damaged) > 0


@pytest.mark.slow
def test_foreign_kv_is_named_with_its_owner_and_reported_first() -> None:
    run = served(100, PlantedBug("foreign_blocks", 0.04), PlantedBug("flipped_byte", 0.04), seed=2)
    history = run.verify(seed=2)
    first = outputs(DEPLOYMENT, history).findings[0]
    assert "was answered with load-" in first.text
    prompts = {o.request.request_id: o.request.prompt for o in history.operations(route=Route.PROXY)}
    # The simulated pair records which outputs are wrong.
    assert first.subject in run.pair.ledger.wrong
    assert first.owner in prompts
    assert f"with {first.owner}'s KV" in first.text
    assert prompts[first.owner] != prompts[first.subject]


@pytest.mark.slow
def test_damage_without_foreign_kv_gets_no_owner() -> None:
    history = verified(100, PlantedBug("flipped_byte", 0.05), seed=2)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert not any("answered with" in finding.text for finding in check.findings)
    assert all(re.search(r"another request's \([1-9][0-9]* tested\)", finding.text) for finding in check.findings)


def test_damage_that_strikes_at_random_does_not_happen_again() -> None:
    history = served(100, PlantedBug("zeroed_layer", 0.01), seed=6).verify(seed=6)
    (finding,) = outputs(DEPLOYMENT, history).findings
    assert (
        "; block 1 of its prompt is the first wrong one in decode-0's cache; it did not happen again in 36"
        in finding.text
    )
    assert {o.request.route for o in history.operations(phase="retry-alone")} == {Route.PROXY}
    assert len({o.request.cache_salt for o in history.operations(phase="retry-together")}) == 32


@pytest.mark.slow
def test_damage_that_strikes_often_happens_again() -> None:
    """The bug draws by request id, so that it damages as large a share of the retries as of the load."""
    run = served(32, PlantedBug("zeroed_layer", 0.3), seed=3)
    history = run.verify(seed=3)
    texts = [
        finding.text
        for finding in outputs(DEPLOYMENT, history).findings
        if "retries" in finding.text or "wrong again" in finding.text
    ]
    assert len(texts) == 3
    struck = [o for o in history.operations(phase="retry-alone") if o.request.request_id in run.pair.ledger.wrong]
    counts = [
        re.search(r"wrong again in (\d+) of 10 retries under load and (\d+) of 4 retries alone", text) for text in texts
    ]
    assert sum(int(count[2]) for count in counts if count) == len(struck) > 0


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["foreign_blocks", "expired_read"])
def test_every_leak_is_named_with_its_owner(bug: str) -> None:
    """There are ten or more in the run: naming one owner does not end the search for the others."""
    run = served(200, PlantedBug(bug, 0.07), seed=2)
    history = run.verify(seed=2)
    owners = {who: owner for who, owner in run.pair.ledger.owners.items() if who in run.pair.ledger.wrong}
    assert len(owners) >= 10
    assert owned_outputs(history) == owners
    found = {finding.subject: finding.text for finding in outputs(DEPLOYMENT, history).findings}
    assert all(f"was answered with {owner}'s KV" in found[who] for who, owner in owners.items())


@pytest.mark.slow
def test_swapped_blocks_pass_the_load_and_are_found_by_the_probe() -> None:
    history = verified(60, PlantedBug("swapped_blocks", 0.3), seed=4)
    assert not wrong_outputs(history)
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert {(one.kind, one.server) for one in check.findings} == {(FindingKind.CACHE, "decode-0")}


@pytest.mark.parametrize("bug", ["swapped_blocks", "offload_stores_wrong"])
def test_wrong_blocks_in_caches_are_found_though_no_output_shows_any_noise(bug: str) -> None:
    """Then no control requests are sent for the outputs; the probes need them all the same."""
    run = served(60, PlantedBug(bug, 0.3), seed=4, noise=QUIET)
    history = run.verify(seed=4)
    assert not wrong_outputs(history)
    assert count_outputs(history).exact == 60
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    assert {(one.kind, one.server) for one in check.findings} == {(FindingKind.CACHE, "decode-0")}


def read_from(server: str, asked: int, possible: int) -> str:
    return (
        f"{server}'s cache: {asked:,} of {possible:,} prompt prefixes were probed; "
        "all of them are shown to be read from there"
    )


def probes(history: History, route: Route) -> list[Operation]:
    probed = (o for o in history.operations(route=route) if o.request.purpose is Purpose.PROBE)
    return [o for o in probed if o.request.condition is Condition.PREFIX_CACHE]


@pytest.mark.slow
def test_a_sample_probes_some_of_the_prefixes_and_reports_how_many() -> None:
    run = served(400, seed=4)
    check = outputs(DEPLOYMENT, run.verify("sample:400", seed=4))
    prefixes = sum((len(o.request.prompt) - 1) // 16 for o in run.history.operations(phase="load"))
    assert prefixes > 1024
    assert check.verdict is Verdict.VALID
    assert read_from("decode-0", 1024, prefixes) in check.notes


@pytest.mark.slow
def test_every_prompt_with_swapped_blocks_is_found_at_the_one_prefix_that_shows_it() -> None:
    run = served(500, PlantedBug("swapped_blocks", 0.02), seed=4)
    history = run.verify("all", seed=4)
    struck = set(run.pair.ledger.struck["swapped_blocks"])
    assert len(struck) == 4
    check = outputs(DEPLOYMENT, history)
    assert {finding.request for finding in check.findings} == struck
    assert {(one.kind, one.server, one.block) for one in check.findings} == {(FindingKind.CACHE, "decode-0", 1)}
    assert all("block 1 is the first wrong one there" in finding.text for finding in check.findings)
    assert not wrong_outputs(history)


def test_the_probes_of_a_clean_pair_are_right_and_read_the_caches() -> None:
    run = served(60, seed=4)
    hits = run.pair.decode.engine.stats.prefix_hits
    history = run.verify(seed=4)
    prefixes = sum((len(o.request.prompt) - 1) // 16 for o in history.operations(phase="load"))
    hits = run.pair.decode.engine.stats.prefix_hits - hits
    assert hits >= sum(len(o.request.prompt) - 1 for o in probes(history, Route.DECODE))
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    assert read_from("decode-0", prefixes, prefixes) in check.notes
    assert read_from("prefill-0", 64, prefixes) in check.notes
    assert count_outputs(history).requests == 60
    assert not history.operations(phase="doubts")


def test_a_tier_with_wrong_blocks_is_found_when_the_prefix_caches_are_emptied() -> None:
    run = served(60, PlantedBug("offload_stores_wrong", 0.1), seed=4)
    history = run.verify(seed=4)
    struck = run.pair.ledger.struck["offload_stores_wrong"]
    named = {finding.request for finding in outputs(DEPLOYMENT, history).findings}
    assert struck
    loads = {name for name in struck if name.count("-") == 1}
    assert named == loads
    assert all("likewise in prefill-0's offload tier" in one.text for one in outputs(DEPLOYMENT, history).findings)
    assert all(server.engine.stats.external_hits_by_tier["host"] for server in run.pair.servers)


def test_a_tier_that_restored_nothing_is_not_reported_as_read() -> None:
    """Its probes were computed anew, so that right answers show nothing about the tier."""
    history = verified(60, seed=4)
    evidence = look_at_outputs(history)
    tier = [o for o in history.operations() if o.request.condition is Condition.OFFLOAD_TIER]
    asked = sum(o.request.route is Route.PREFILL for o in tier)
    nothing = Hits(Condition.OFFLOAD_TIER, "prefill-0", asked, 0, 900, restored=0, why="900 tokens were computed anew")
    (line,) = probe_coverage(DEPLOYMENT, evidence, [nothing], {"prefill-0": 300})
    assert "none of them is shown to be read from there (900 tokens were computed anew)" in line
    assert line.endswith("the tier restored nothing")


def test_a_tier_that_cannot_be_probed_is_reported() -> None:
    run = served(60, seed=4)
    run.reset_status = 404
    check = outputs(DEPLOYMENT, history := run.verify(seed=4))
    assert check.verdict is Verdict.VALID
    assert "decode-0's offload tier was not probed (its prefix cache could not be emptied: HTTP 404" in " ".join(
        check.notes
    )
    assert not [o for o in history.operations() if o.sent.phase.endswith("-tier")]


@pytest.mark.slow
def test_prefixes_of_prompts_without_forcing_are_compared_with_the_prefill_servers_answers() -> None:
    history = verified(300, seed=1, policy="sample:40")
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    decode, prefill = (probes(history, route) for route in (Route.DECODE, Route.PREFILL))
    assert len(decode) > len(prefill) > 0.8 * len(decode)
    assert read_from("decode-0", len(decode), len(decode)) in check.notes


def test_a_probe_with_nothing_to_compare_is_left_out_and_not_counted() -> None:
    history = verified(60, seed=4)
    lost = next((len(o.request.prompt) - 1) // 16 for o in history.operations() if o.request.request_id == "load-00007")
    assert lost
    blind = [
        e
        for e in history.entries
        if not isinstance(e, Sent | Ended)
        or not _name(e).startswith(("load-00007-teacher", "load-00007-probe-prefill"))
    ]
    check = outputs(DEPLOYMENT, History(tuple(blind)))
    prefixes = sum((len(o.request.prompt) - 1) // 16 for o in history.operations(phase="load"))
    (note,) = (one for one in check.notes if "decode-0's cache" in one)
    assert f"at least {prefixes - lost} of them are shown to be read from there" in note
    assert f"{lost} of them had nothing to be compared with" in note
    assert check.verdict is Verdict.VALID


@pytest.mark.slow
def test_a_doubted_probe_without_a_forcing_of_its_own_is_unknown() -> None:
    history = verified(60, PlantedBug("swapped_blocks", 0.3), seed=4)
    assert history.operations(phase="doubts")
    unforced = [
        e
        for e in history.entries
        if not (isinstance(e, Sent) and e.phase == "doubts")
        and not (isinstance(e, Sent | Ended) and "-probe-" in _name(e) and "-teacher" in _name(e))
    ]
    check = outputs(DEPLOYMENT, History(tuple(unforced)))
    assert check.verdict is Verdict.UNKNOWN
    assert {(finding.kind, finding.server) for finding in check.findings} == {(FindingKind.UNVERIFIED, "decode-0")}
    assert all("-probe-decode-" in finding.subject for finding in check.findings)


def _name(entry: Sent | Ended) -> str:
    return entry.request.request_id if isinstance(entry, Sent) else entry.request_id


@pytest.mark.slow
def test_a_sample_is_verified_and_the_rest_is_reported_as_left_out() -> None:
    history = verified(300, seed=1, policy="sample:40")
    counts, check = count_outputs(history), outputs(DEPLOYMENT, history)
    assert (counts.exact + counts.tie, counts.unverified, check.verdict) == (40, 260, Verdict.VALID)
    assert "260 not sampled" in check.summary
    kinds = Counter(o.sent.phase for o in history.operations())
    assert 32 <= kinds["control"] <= 40


@pytest.mark.slow
def test_an_output_that_is_not_wrong_beyond_any_noise_gets_more_control_requests_before_it_is_reported() -> None:
    history = verified(100, PlantedBug("scaled_kv", 0.05), seed=2)
    wrong = set(wrong_outputs(history))
    assert wrong
    again = [o for o in history.operations() if o.sent.phase == "confirmation"]
    assert wrong <= {o.request.about for o in again}
    assert {o.request.route for o in again} == {Route.DECODE}
