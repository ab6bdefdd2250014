"""The counters for each combination of connectors and caches, row by row. Numbers are calculated by hand; B = 64."""

from dataclasses import replace
from typing import Any

import pytest
from oracle_runs import BLOCK, DIRECT_D, DIRECT_P, NIXL, OFFLOADING, B, Script, deployed, prompt, row

from harness.facts import Connector, Deployment
from harness.scenario import Sampling
from harness.verdict import Bounds

T = 3 * B + 10
HIT_2_OF_3 = {"prompt_tokens": 192, "prefix_queries": 192, "prefix_hits": 128, "local_cache_hit": 128}
"""A prompt of three full blocks whose first two are cached."""
BROUGHT_1 = {"external_queries": 64, "external_hits": 64, "external_kv_transfer": 64}
"""A connector brings the third block."""
ONE_TOKEN = {"prompt_tokens": 1, "local_compute": 1, "prefix_queries": 2, "external_queries": 2, "external_hits": 1}


def again(deployment: Deployment, tokens: tuple[int, ...] = prompt(T), **fields: Any) -> Script:
    """The same prompt through the proxy in two phases, ``first`` and ``second``."""
    script = Script(deployment)
    script.ask(tokens, phase="first", **fields)
    script.ask(tokens, phase="second", **fields)
    return script


@pytest.mark.parametrize("connectors", [(NIXL,), (NIXL, OFFLOADING), (OFFLOADING, NIXL)])
def test_prefill_computes_and_decode_pulls_a_cold_prompt(connectors: tuple[Connector, ...]) -> None:
    expected = again(deployed(*connectors)).expect("first")
    looked_up = {"prompt_tokens": T, "prefix_queries": T, "external_queries": T}
    stored = {"offload_store_bytes": 3} if OFFLOADING in connectors else {}
    assert row(expected["prefill-0"]) == looked_up | {"local_compute": T} | stored
    pulled = {"external_kv_transfer": T, "external_hits": T, "nixl_bytes": 4}
    assert row(expected["decode-0"]) == looked_up | pulled | stored


@pytest.mark.parametrize("connectors", [(NIXL,), (NIXL, OFFLOADING), (OFFLOADING, NIXL)])
def test_cached_full_blocks_are_hit_on_both_and_the_partial_one_is_computed_and_pulled(
    connectors: tuple[Connector, ...],
) -> None:
    expected = again(deployed(*connectors)).expect("second")
    hit = {"prefix_queries": T, "prefix_hits": 3 * B, "local_cache_hit": 3 * B, "external_queries": 10}
    assert row(expected["prefill-0"]) == hit | {"prompt_tokens": T, "local_compute": 10}
    pulled = {"external_kv_transfer": 10, "external_hits": 10, "nixl_bytes": 1}
    assert row(expected["decode-0"]) == hit | {"prompt_tokens": T} | pulled


def test_a_prompt_of_full_blocks_hits_all_but_the_last_which_is_pulled_and_loaded() -> None:
    expected = again(deployed(NIXL, OFFLOADING), prompt(3 * B)).expect("second")
    assert row(expected["prefill-0"]) == HIT_2_OF_3 | BROUGHT_1 | {"offload_load_bytes": 1}
    assert row(expected["decode-0"]) == HIT_2_OF_3 | BROUGHT_1 | {"nixl_bytes": 1}


def test_without_a_tier_prefill_computes_the_last_full_block_again() -> None:
    expected = again(deployed(NIXL), prompt(3 * B)).expect("second")["prefill-0"]
    assert row(expected) == HIT_2_OF_3 | {"local_compute": 64, "external_queries": 64}


def test_with_the_tier_first_decode_loads_the_last_block_and_nixl_only_notifies() -> None:
    expected = again(deployed(OFFLOADING, NIXL), prompt(3 * B)).expect("second")["decode-0"]
    assert row(expected) == HIT_2_OF_3 | BROUGHT_1 | {"offload_load_bytes": 1}


@pytest.mark.parametrize("times", [1, 2])
def test_one_token_is_looked_up_twice_and_computed_on_decode(times: int) -> None:
    expected = again(deployed(NIXL, OFFLOADING), prompt(1)).expect("first" if times == 1 else "second")
    assert row(expected["decode-0"]) == ONE_TOKEN | {"nixl_bytes": 1}


def test_without_prefix_caching_prefill_loads_all_full_blocks_and_decode_pulls_everything() -> None:
    expected = again(deployed(NIXL, OFFLOADING, prefix_caching=False)).expect("second")
    looked_up = {"prompt_tokens": T, "external_queries": T}
    loaded = {"external_kv_transfer": 192, "external_hits": 192, "offload_load_bytes": 3}
    pulled = {"external_kv_transfer": T, "external_hits": T, "nixl_bytes": 4}
    assert row(expected["prefill-0"]) == looked_up | loaded | {"local_compute": 10}
    assert row(expected["decode-0"]) == looked_up | pulled


def test_evicted_blocks_are_loaded_from_the_tier() -> None:
    # 10 blocks: the first prompt leaves 7 without a name; each churn request takes 5 and frees one without a name.
    script = Script(deployed(NIXL, OFFLOADING, blocks=10))
    script.ask(prompt(T), phase="first", route=DIRECT_P)
    for start in (10_000, 20_000, 30_000):
        script.ask(prompt(5 * B - 2, start), phase="churn", route=DIRECT_P)
    script.ask(prompt(T), phase="again", route=DIRECT_P)
    looked_up = {"prompt_tokens": T, "prefix_queries": T, "external_queries": T, "local_compute": 10}
    loaded = {"external_hits": 192, "external_kv_transfer": 192, "offload_load_bytes": 3}
    assert row(script.expect("again")["prefill-0"]) == looked_up | loaded


def test_prompt_logprobs_read_no_cache_on_decode_but_are_cached() -> None:
    script = Script(deployed(NIXL, OFFLOADING))
    script.ask(prompt(T), phase="scored", sampling=Sampling(max_tokens=2, prompt_logprobs=0))
    script.ask(prompt(T), phase="scored again", sampling=Sampling(max_tokens=2, prompt_logprobs=0))
    script.ask(prompt(T), phase="plain")
    computed = {"prompt_tokens": T, "local_compute": T, "external_queries": T}
    assert row(script.expect("scored")["decode-0"]) == computed | {"offload_store_bytes": 3}
    assert row(script.expect("scored again")["decode-0"]) == computed
    assert script.expect("plain")["decode-0"].local_cache_hit.low == 3 * B
    # Prefill is not asked for log-probabilities: it finds the blocks of the first request.
    assert script.expect("scored again")["prefill-0"].local_cache_hit.low == 3 * B


@pytest.mark.parametrize(
    ("version", "external"),
    [("0.26.0", Bounds(T, T)), ("0.28.1", Bounds(0, T)), (None, Bounds(0, T)), ("0.31.0", Bounds(0, 0))],
)
def test_whether_connectors_bring_a_prompt_with_prompt_logprobs_depends_on_the_release(
    version: str | None, external: Bounds
) -> None:
    script = Script(deployed(NIXL, OFFLOADING, version=version))
    script.ask(prompt(T), phase="scored", sampling=Sampling(max_tokens=2, prompt_logprobs=0))
    expected = script.expect("scored")["decode-0"]
    assert expected.external_kv_transfer == external
    assert expected.local_compute == Bounds(T - external.high, T - external.low)
    assert expected.nixl_bytes == Bounds(4 * BLOCK * (external.low > 0), 4 * BLOCK * (external.high > 0))
    assert expected.prefix_queries == Bounds(0, 0)


def test_a_turn_hits_the_previous_turn_with_its_output_on_decode() -> None:
    # 100 + 40 tokens: the last one has no KV, so 139 tokens fill two full blocks.
    script = Script(deployed(NIXL, OFFLOADING))
    said = tuple(range(5000, 5040))
    script.ask(prompt(100), phase="one", output=40, said=(said,))
    script.ask((*prompt(100), *said, *prompt(10, 7000)), phase="two")
    decode, prefill = script.expect("two")["decode-0"], script.expect("two")["prefill-0"]
    assert (decode.local_cache_hit.low, decode.external_kv_transfer.low) == (128, 22)
    assert (prefill.local_cache_hit.low, prefill.local_compute.low) == (64, 86)


@pytest.mark.parametrize(("output", "hit"), [(28, 64), (29, 128)])
def test_the_last_sampled_token_fills_no_block(output: int, hit: int) -> None:
    script = Script(deployed(NIXL))
    said = tuple(range(5000, 5000 + output))
    script.ask(prompt(100), phase="one", output=output, said=(said,))
    script.ask((*prompt(100), *said, *prompt(10, 7000)), phase="two")
    assert script.expect("two")["decode-0"].local_cache_hit.low == hit


def test_a_salt_has_a_cache_of_its_own() -> None:
    script = Script(deployed(NIXL))
    for phase, salt in (("first", None), ("other", "a"), ("same", "a"), ("none", None)):
        script.ask(prompt(T), phase=phase, cache_salt=salt)
    hits = {phase: script.expect(phase)["decode-0"].local_cache_hit.low for phase in ("first", "other", "same", "none")}
    assert hits == {"first": 0, "other": 0, "same": 192, "none": 192}


def test_decode_asked_directly_finds_blocks_that_it_pulled() -> None:
    script = Script(deployed(NIXL, OFFLOADING))
    script.ask(prompt(T), phase="pulled")
    script.ask(prompt(T), phase="direct", route=DIRECT_D)
    expected = script.expect("direct")
    assert row(expected["prefill-0"]) == {}
    hit = {"prompt_tokens": T, "prefix_queries": T, "prefix_hits": 192, "local_cache_hit": 192}
    assert row(expected["decode-0"]) == hit | {"local_compute": 10, "external_queries": 10}


@pytest.mark.parametrize(
    ("tokens", "prefill_blocks"),
    # Prefill's blocks have 32 tokens: 202 tokens fill 7; 65 fill 3, though decode's two blocks would take 4.
    [(202, 7), (65, 3), (256, 8)],
)
def test_larger_blocks_on_decode_are_read_as_blocks_of_prefill(tokens: int, prefill_blocks: int) -> None:
    prefill, decode = deployed(NIXL).servers
    prefill = replace(prefill, block_size=B // 2)
    script = Script(deployed(NIXL, servers=(prefill, decode)))
    script.ask(prompt(tokens))
    assert script.expect()["decode-0"].nixl_bytes.low * 2 == prefill_blocks * 64_000


def test_smaller_blocks_on_decode_are_not_predicted() -> None:
    prefill, decode = deployed(NIXL).servers
    decode = replace(decode, block_size=B // 2)
    script = Script(deployed(NIXL, servers=(prefill, decode)))
    script.ask(prompt(T))
    assert "no multiple of prefill's" in script.expect()["decode-0"].why("nixl_bytes")


def test_each_of_n_choices_is_a_request_on_decode_and_all_are_one_on_prefill() -> None:
    script = Script(deployed(NIXL))
    script.ask(prompt(50), sampling=Sampling(max_tokens=2, n=3), said=((1, 2), (3, 4), (5, 6)))
    decode, prefill = script.expect()["decode-0"], script.expect()["prefill-0"]
    assert (decode.prompt_tokens.low, decode.nixl_bytes.low, decode.generation_tokens.low) == (150, 3 * 64_000, 6)
    assert (prefill.prompt_tokens.low, prefill.generation_tokens.low) == (50, 1)


def test_one_rank_reads_once() -> None:
    script = Script(deployed(NIXL, ranks=1))
    script.ask(prompt(T))
    assert script.expect()["decode-0"].nixl_transfers == Bounds.exactly(1)


def tier_of(chunks: int, *, tokens_per_step: int | None = 8192) -> Script:
    return Script(deployed(NIXL, OFFLOADING, max_num_batched_tokens=tokens_per_step, offload_blocks=chunks))


def test_a_full_tier_evicts_the_oldest_request_from_its_end() -> None:
    # Four chunks: the second prompt's three leave only the first chunk of the first prompt.
    script = tier_of(4)
    script.ask(prompt(T), phase="first", route=DIRECT_P)
    script.ask(prompt(T, 1000), phase="second", route=DIRECT_P)
    script.ask(prompt(T), phase="again", route=DIRECT_P)
    stored = [script.expect(phase)["prefill-0"].offload_store_bytes for phase in ("first", "second", "again")]
    assert stored == [Bounds.exactly(3 * BLOCK), Bounds.exactly(3 * BLOCK), Bounds.exactly(2 * BLOCK)]


def test_the_capacity_of_the_tier_follows_from_its_bytes() -> None:
    # A chunk of 64,000 bytes takes 16 pages of 4,096: four of them take 262,144 bytes.
    script = tier_of(4)
    for given, chunks in ((262_144, 2), (262_143, 3)):
        sized = Script(script.deployment.with_servers(offload_blocks=None, offload_bytes=given))
        for phase, start in (("first", 0), ("second", 1000), ("again", 0)):
            sized.ask(prompt(T, start), phase=phase, route=DIRECT_P)
        assert sized.expect("again")["prefill-0"].offload_store_bytes == Bounds.exactly(chunks * BLOCK)
