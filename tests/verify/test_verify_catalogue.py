"""Verification of the catalogue, in virtual time: noise raises no alarm, and damage is charged to its workload."""

from collections import Counter

import pytest
from catalogue_world import CatalogueRun, run_catalogue

from harness.catalogue.choice import catalogue, choose
from harness.history import Operation, Scraped
from harness.scenario import Condition, Message, Purpose, Route
from harness.sim import QUIET, PlantedBug, SimConfig
from harness.verdict import Bounds, FindingKind, Verdict
from harness.verify.asking import VERIFICATION, VerifyOptions, VerifyPolicy, verified
from harness.verify.asking.outputs import through_proxy, to_verify
from harness.verify.asking.policy import CONTROL_OUTPUT
from harness.verify.judging import wrong_outputs

THE_NINE = (
    *("short_prompt", "block_boundary", "above_boundary", "multi_block", "cold_decode", "full_decode_hit"),
    *("partial_decode_hit", "direct_decode", "offload_recovery"),
)
FEW = ("lengths", "hits", "direct", "sampling")


def config(*bugs: PlantedBug, seed: int = 0, **fields: object) -> SimConfig:
    """A pair whose near ties flip as they do on a GPU."""
    sizes = {"num_blocks": 512, "max_model_len": 1024, "lease_seconds": 2.0, "seed": seed, "bugs": bugs}
    return SimConfig(**(sizes | fields))  # type: ignore[arg-type]  # the tests name the fields


def asked_again(run: CatalogueRun) -> list[Operation]:
    """The requests that verify outputs, without the salt test, which comes before the load."""
    everything = run.history.operations(scenario=VERIFICATION)
    return [o for o in everything if o.request.purpose is not Purpose.SALT_TEST]


def probes(run: CatalogueRun) -> list[Operation]:
    return [o for o in asked_again(run) if o.request.purpose in (Purpose.PROBE, Purpose.RESET)]


def others(run: CatalogueRun) -> list[Operation]:
    return [o for o in asked_again(run) if o.request.purpose not in (Purpose.PROBE, Purpose.RESET)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_flips_of_near_ties_are_no_alarm_in_the_whole_catalogue(seed: int) -> None:
    run = await run_catalogue(catalogue(), config(seed=seed), seed=seed)
    whole, rows = run.judged()
    bad = {name for name, row in rows.items() if row.verdict is not Verdict.VALID}
    assert bad == {entry.name for entry in run.ran if entry.known_fault}
    assert len(rows) > 40
    assert whole.outputs.requests == len(to_verify(run.history))
    right = [row.outputs for name, row in rows.items() if name not in bad]
    assert all(outputs.requests == outputs.exact + outputs.tie for outputs in right)
    known = [row.outputs for name, row in rows.items() if name in bad]
    assert whole.outputs.mismatch == sum(outputs.mismatch for outputs in known)
    assert whole.outputs.unverified == 0
    assert whole.outputs.tie > 10, "nothing flipped: the test shows nothing"
    assert sum(row.outputs.requests for row in rows.values()) == whole.outputs.requests


@pytest.mark.parametrize(
    "bug",
    [
        "foreign_blocks",
        *(
            pytest.param(bug, marks=pytest.mark.slow)
            for bug in (
                *(
                    "misaligned_hit",
                    "expired_read",
                    "stale_tail",
                    "tail_off_by_one",
                    "flipped_byte",
                    "zeroed_last_block",
                ),
                *("stale_block", "shifted_rows", "swapped_tail", "bystander_write", "full_hit_wrong"),
            )
        ),
    ],
)
async def test_exactly_the_damaged_outputs_are_named_and_their_workloads_invalid(bug: str) -> None:
    run = await run_catalogue(choose(FEW), config(PlantedBug(bug, 0.15), seed=1), seed=1)
    subjects = {o.request.request_id: o.sent.scenario for o in to_verify(run.history)}
    damaged = run.ledger.wrong & set(subjects)
    assert damaged, "the bug damaged no request: the test shows nothing"
    assert set(wrong_outputs(run.history)) - run.ledger.victims <= damaged <= set(wrong_outputs(run.history))
    _, rows = run.judged()
    invalid = {
        name
        for name, row in rows.items()
        if any(check.name == "outputs" and check.verdict is Verdict.INVALID for check in row.checks)
    }
    assert invalid == {subjects[name] for name in wrong_outputs(run.history)}
    assert len(invalid) < len(rows)


async def test_the_nine_basic_cases_are_verified_by_few_kinds_of_requests() -> None:
    run = await run_catalogue(choose(THE_NINE), config())
    kinds = Counter(o.sent.phase for o in others(run))
    outputs = len(to_verify(run.history))
    assert outputs == 12
    assert kinds == {"teacher": outputs, "control": 80, "teacher-2": 80}
    assert run.outputs().requests == outputs


async def test_servers_without_noise_need_no_control_requests() -> None:
    run = await run_catalogue(choose(THE_NINE), config(noise=QUIET))
    assert {o.sent.phase for o in others(run)} == {"teacher"}
    assert run.outputs().exact == len(to_verify(run.history))
    _, rows = run.judged()
    assert {row.verdict for row in rows.values()} == {Verdict.VALID}


async def test_verification_comes_after_the_last_workload_and_its_counters_are_not_judged() -> None:
    run = await run_catalogue(choose(("short_prompt", "hits")), config())
    last = max(o.ended.at for o in run.history.operations() if o.sent.scenario != VERIFICATION)
    assert min(o.sent.at for o in asked_again(run)) >= last
    labels = {entry.label for entry in run.history.of(Scraped) if entry.scenario == VERIFICATION}
    assert labels == {"watched-before", "watched-after"}
    salts = [o.request.cache_salt for o in others(run)]
    assert len(set(salts)) == len(salts)
    assert {o.request.cache_salt for o in probes(run) if o.request.purpose is Purpose.PROBE} <= {
        o.request.cache_salt for o in to_verify(run.history)
    }


async def test_control_requests_go_to_decode_and_have_prompts_of_all_workloads() -> None:
    run = await run_catalogue(choose(("lengths", "hits")), config(max_model_len=2048))
    controls = [o for o in asked_again(run) if o.sent.phase == "control"]
    assert {o.request.route for o in controls} == {Route.DECODE}
    assert {len(o.ended.choices[0].token_ids) for o in controls} == {CONTROL_OUTPUT}
    of = {o.request.request_id: o.sent.scenario for o in to_verify(run.history)}
    assert {of[str(o.request.about)] for o in controls} == {entry.name for entry in run.ran}
    assert max(len(o.request.prompt) for o in controls) == 1024


async def test_only_outputs_that_forcing_cannot_verify_get_a_reference() -> None:
    run = await run_catalogue(choose(("sampling", "endpoints", "chat", "lengths")), config())
    references = {o.request.about for o in asked_again(run) if o.request.purpose is Purpose.REFERENCE}
    for o in to_verify(run.history):
        text = isinstance(o.request.prompt, str) or any(isinstance(turn, Message) for turn in o.request.prompt)
        shaped = o.request.sampling.stop or o.request.sampling.echo
        assert (o.request.request_id in references) == bool(text or shaped)


async def test_damage_to_a_background_request_is_charged_to_its_workload() -> None:
    run = await run_catalogue(
        choose(("multi_block", "cold_decode")), config(PlantedBug("flipped_byte", 0.1), seed=2), background=4
    )
    subjects = {o.request.request_id: o.sent.scenario for o in to_verify(run.history)}
    damaged = run.ledger.wrong & set(subjects)
    assert damaged
    assert all("-background-" in name for name in damaged), (
        "with this seed the bug must damage background requests alone"
    )
    assert set(wrong_outputs(run.history)) == damaged
    _, rows = run.judged()
    for name, row in rows.items():
        named = {finding.subject for check in row.checks for finding in check.findings}
        assert named == {who for who in damaged if subjects[who] == name}
        assert (row.verdict is Verdict.INVALID) == bool(named)


@pytest.mark.slow
async def test_background_tokens_are_predicted() -> None:
    run = await run_catalogue(choose(("multi_block", "hits")), config(), background=4)
    whole, rows = run.judged()
    assert {row.verdict for row in rows.values()} == {Verdict.VALID}
    assert all(comparison.expected is not None for comparison in whole.comparisons)
    assert len(to_verify(run.history)) > 2 * len(run.ran)


async def test_lost_kv_of_a_background_request_alone_shows_in_the_counters() -> None:
    run = await run_catalogue(
        choose(("multi_block",)), config(PlantedBug("dropped_params", 0.25), seed=0), background=4
    )
    assert run.ledger.planted
    assert all("-background-" in name for name in run.ledger.planted)
    _, rows = run.judged()
    sources = next(check for check in rows["multi_block"].checks if check.name == "token_sources")
    assert sources.verdict is Verdict.INVALID


@pytest.mark.slow
async def test_repeated_steps_send_no_request_twice() -> None:
    run = await run_catalogue(choose(("lengths",)), config())
    how = VerifyOptions(policy=VerifyPolicy.parse("all"), salt="salt-verification", probe_tiers=True)
    assert not list(verified([], run.deployment, lambda: run.history, how))


@pytest.mark.slow
async def test_a_field_that_the_proxy_drops_is_found_even_if_every_token_is_right() -> None:
    run = await run_catalogue(choose(("stop_strings", "lengths")), config(PlantedBug("dropped_fields", 0.4)))
    struck = run.ledger.planted & {o.request.request_id for o in to_verify(run.history)}
    assert struck
    assert set(wrong_outputs(run.history)) <= struck
    assert len(wrong_outputs(run.history)) > 0.7 * len(struck)


async def test_a_buffered_stream_is_charged_to_its_workload() -> None:
    run = await run_catalogue(choose(("mixed_lengths", "short_prompt")), config(PlantedBug("burst", 0.1)))
    whole, rows = run.judged()
    assert next(check for check in whole.checks if check.name == "streaming").verdict is Verdict.INVALID
    assert rows["mixed_lengths"].verdict is Verdict.INVALID
    assert rows["short_prompt"].verdict is Verdict.VALID


@pytest.mark.slow
async def test_caches_are_probed_first_and_tiers_last() -> None:
    run = await run_catalogue(choose(FEW), config())
    conditions = [(o.request.route, o.request.condition) for o in probes(run)]
    assert list(dict.fromkeys(conditions)) == [
        (Route.DECODE, Condition.PREFIX_CACHE),
        (Route.PREFILL, Condition.PREFIX_CACHE),
        (Route.DECODE, None),
        (Route.PREFILL, None),
        (Route.DECODE, Condition.OFFLOAD_TIER),
        (Route.PREFILL, Condition.OFFLOAD_TIER),
    ]
    asked_of = {o.sent.scenario for o in to_verify(run.history) if o.request.request_id in about(run)}
    assert asked_of == {o.sent.scenario for o in through_proxy(run.history) if len(o.prompt_token_ids or ()) > 16}
    reset = next(o for o in probes(run) if o.request.purpose is Purpose.RESET)
    assert max(o.ended.at for o in others(run)) <= reset.sent.at
    notes = " ".join(next(check for check in run.judged()[0].checks if check.name == "outputs").notes)
    for cache in ("decode-0's cache", "prefill-0's cache", "decode-0's offload tier", "prefill-0's offload tier"):
        assert f"{cache}: " in notes


def about(run: CatalogueRun) -> set[str | None]:
    return {o.request.about for o in probes(run)}


async def test_a_wrong_block_in_a_tier_is_charged_to_the_workload_of_its_prompt() -> None:
    run = await run_catalogue(choose(("lengths", "sampling")), config(PlantedBug("offload_stores_wrong", 0.1), seed=1))
    assert run.outputs().mismatch == 0
    _, rows = run.judged()
    found = {
        name: {
            finding.subject for check in row.checks for finding in check.findings if finding.kind is FindingKind.CACHE
        }
        for name, row in rows.items()
    }
    subjects = {o.request.request_id: o.sent.scenario for o in to_verify(run.history)}
    assert any(found.values()), "no block was stored wrong: the test shows nothing"
    for name, row in rows.items():
        assert all(subjects[who] == name for who in found[name])
        outputs = next(check for check in row.checks if check.name == "outputs")
        assert (outputs.verdict is Verdict.INVALID) == bool(found[name])


def expectations(run: CatalogueRun) -> dict[tuple[str, str, str, str], Bounds | None]:
    whole, _ = run.judged()
    return {(one.scenario, one.phase, one.server, one.counter): one.expected for one in whole.comparisons}


@pytest.mark.slow
async def test_verification_between_two_workloads_does_not_change_predictions_for_the_second() -> None:
    run = await run_catalogue(choose(("hits", "offload")), config(), one_by_one=True)
    _, rows = run.judged()
    assert {row.verdict for row in rows.values()} == {Verdict.VALID}
    assert expectations(run) == expectations(await run_catalogue(choose(("hits", "offload")), config()))
    assert {o.request.purpose for o in probes(run)} == {Purpose.PROBE}, "no prefix cache is emptied"
    asked_of = {o.sent.scenario for o in to_verify(run.history) if o.request.request_id in about(run)}
    assert asked_of == {o.sent.scenario for o in through_proxy(run.history) if len(o.prompt_token_ids or ()) > 16}
    notes = " ".join(next(check for check in rows["cold_decode"].checks if check.name == "outputs").notes)
    assert "not probed: prefill-0's offload tier, decode-0's offload tier" in notes
