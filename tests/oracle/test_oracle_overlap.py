"""Counters that stay exact when requests overlap, and counters that get bounds. B = 64."""

import pytest
from oracle_runs import BLOCK, DIRECT_P, NIXL, OFFLOADING, B, Script, bounds, deployed, exactly, prompt

from harness.history import Outcome
from harness.scenario import Sampling
from harness.verdict import Bounds

T = 3 * B + 10


def together() -> Script:
    script = Script(deployed(NIXL, OFFLOADING))
    script.together([prompt(T)] * 4)
    return script


def test_of_equal_concurrent_requests_exactly_one_computes_on_prefill() -> None:
    prefill = together().expect()["prefill-0"]
    assert exactly(prefill, "local_compute") == T + 3 * 10
    assert exactly(prefill, "local_cache_hit") == 3 * 192
    assert exactly(prefill, "external_queries") == T + 3 * 10


def test_of_equal_concurrent_requests_at_least_one_pulls_everything_on_decode() -> None:
    decode = together().expect()["decode-0"]
    assert bounds(decode, "external_kv_transfer") == Bounds(T + 3 * 10, 4 * T)
    assert bounds(decode, "local_cache_hit") == Bounds(0, 3 * 192)
    assert bounds(decode, "nixl_bytes") == Bounds((4 + 3) * BLOCK, 16 * BLOCK)
    assert "order of requests that overlap" in decode.why("external_kv_transfer")


def test_a_chunk_is_stored_once_in_any_order() -> None:
    expected = together().expect()
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 3 * BLOCK
    assert exactly(expected["decode-0"], "offload_store_bytes") == 3 * BLOCK


def test_different_concurrent_prompts_are_exact() -> None:
    script = Script(deployed(NIXL, OFFLOADING))
    script.together([prompt(T, start) for start in (0, 1000, 2000)])
    assert exactly(script.expect()["decode-0"], "external_kv_transfer") == 3 * T


def test_a_cached_prefix_is_hit_by_all_concurrent_requests() -> None:
    script = Script(deployed(NIXL, OFFLOADING))
    script.ask(prompt(2 * B), phase="before")
    script.together([(*prompt(2 * B), *prompt(20, start)) for start in (5000, 6000, 7000)])
    decode = script.expect()["decode-0"]
    assert exactly(decode, "local_cache_hit") == 3 * 128
    assert exactly(decode, "external_kv_transfer") == 3 * 20


def test_a_later_request_certainly_hits() -> None:
    script = together()
    script.ask(prompt(T), phase="later")
    assert exactly(script.expect("later")["decode-0"], "local_cache_hit") == 192


def test_a_request_that_cannot_hit_a_block_may_have_come_first() -> None:
    # Three full blocks: only the longer prompt can hit the last one.
    script = Script(deployed(NIXL))
    script.together([prompt(3 * B), prompt(3 * B + 1)], route=DIRECT_P)
    prefill = script.expect()["prefill-0"]
    assert bounds(prefill, "local_cache_hit") == Bounds(128, 192)


def test_a_concurrent_request_with_prompt_logprobs_may_have_come_first() -> None:
    script = Script(deployed(NIXL))
    (plain,) = script.together([prompt(T)], route=DIRECT_P)
    script.now -= 10
    script.together([prompt(T)], route=DIRECT_P, sampling=Sampling(max_tokens=2, prompt_logprobs=0))
    assert plain.request.sampling.prompt_logprobs is None
    assert bounds(script.expect()["prefill-0"], "local_cache_hit") == Bounds(0, 192)


def test_an_unknown_outcome_widens_the_bounds_of_the_request_and_of_requests_with_its_prompt() -> None:
    script = Script(deployed(NIXL))
    script.ask(prompt(T), phase="lost", outcome=Outcome.INFO)
    script.ask(prompt(T), phase="after")
    script.ask(prompt(T, 5000), phase="other")
    assert bounds(script.expect("lost")["decode-0"], "external_kv_transfer") == Bounds(0, T)
    assert bounds(script.expect("after")["decode-0"], "external_kv_transfer") == Bounds(10, T)
    why = script.expect("lost")["decode-0"].why("external_kv_transfer")
    assert "how far the servers got with r0 is not known" in why
    assert exactly(script.expect("other")["decode-0"], "external_kv_transfer") == T


def test_an_interrupted_answer_may_have_continued() -> None:
    # 100 prompt tokens and one known output token of at most 100; unknown further tokens may fill the second block.
    script = Script(deployed(NIXL))
    script.ask(prompt(100), phase="lost", outcome=Outcome.INFO, said=((7,),), sampling=Sampling(max_tokens=100))
    script.ask((*prompt(100), 7, *prompt(60, 5000)), phase="continued")
    script.ask((*prompt(100), 8, *prompt(60, 5000)), phase="another")
    assert bounds(script.expect("continued")["decode-0"], "local_cache_hit") == Bounds(0, 128)
    assert bounds(script.expect("another")["decode-0"], "local_cache_hit") == Bounds(64, 64)


@pytest.mark.parametrize(("salt", "hits"), [(None, Bounds(0, 192)), ("fresh", Bounds(0, 0))])
def test_an_attached_deployment_may_have_prompts_without_a_salt_cached(salt: str | None, hits: Bounds) -> None:
    script = Script(deployed(NIXL, OFFLOADING, launched=False))
    script.ask(prompt(T), phase="first", cache_salt=salt)
    script.ask(prompt(T), phase="second", cache_salt=salt)
    assert bounds(script.expect("first")["decode-0"], "local_cache_hit") == hits
    assert exactly(script.expect("second")["decode-0"], "local_cache_hit") == 192


def test_eviction_under_overlap_has_bounds_and_a_reason() -> None:
    # The pool has 10 blocks. The two new prompts take up to 8, so the third of the old prompt's blocks may be evicted.
    script = Script(deployed(NIXL, blocks=10))
    script.ask(prompt(T), phase="old", route=DIRECT_P)
    script.together([prompt(T, 1000), prompt(T, 2000), prompt(T)], route=DIRECT_P)
    prefill = script.expect()["prefill-0"]
    assert bounds(prefill, "local_cache_hit") == Bounds(128, 192)
    assert "the pool of 10 blocks" in prefill.why("local_cache_hit")


def test_eviction_is_exact_if_requests_do_not_overlap() -> None:
    script = Script(deployed(NIXL, blocks=10))
    for phase, start in (("old", 0), ("churn", 1000), ("churn", 2000), ("again", 0)):
        script.ask(prompt(T, start), phase=phase, route=DIRECT_P)
    # Each prompt takes 4 blocks and frees the partial one: 7, 4 and 1 unnamed blocks are left, and none is evicted.
    assert exactly(script.expect("again")["prefill-0"], "local_cache_hit") == 192
    # Prompt 1000 has the oldest named blocks: three new blocks take the unnamed one and evict the prompt's last two.
    script.ask(prompt(B, 3000), phase="more", output=1, route=DIRECT_P)
    script.ask(prompt(2 * B, 4000), phase="more", output=1, route=DIRECT_P)
    script.ask(prompt(T, 1000), phase="gone", route=DIRECT_P)
    assert exactly(script.expect("gone")["prefill-0"], "local_cache_hit") == 64
