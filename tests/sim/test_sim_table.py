"""Every counter of the simulated servers, as vLLM would count; expectations are computed by hand.

The block size is 16, so that the prompt of 50 tokens has three whole blocks and a partial one of 2 tokens.
"""

from typing import Any

import pytest
from sim_transit import through

from harness.facts import Connector
from harness.scenario import Endpoint
from harness.sim import QUIET, SimConfig, SimPair, SimServer
from harness.sim.transit import prefill_body

NIXL, OFFLOADING = Connector.NIXL, Connector.OFFLOADING
PROMPT = [264 + 7 * i for i in range(50)]


def make_pair(**fields: Any) -> SimPair:
    return SimPair(SimConfig(noise=QUIET, eos_rate=0.0, audit_always=True, **fields), lambda: 0.0)


def counters(server: SimServer) -> dict[str, float]:
    stats, block = server.engine.stats, server.config.block_bytes
    return {
        "prefix": (stats.prefix_queries, stats.prefix_hits),
        "external": (stats.external_queries, stats.external_hits),
        "sources": (stats.local_compute, stats.local_cache_hit, stats.external_kv_transfer),
        "nixl": (stats.nixl_bytes.total / block,),
        "load": (stats.load_sizes.total / block,),
        "store": (stats.store_sizes.total / block,),
        "prompt_tokens": (stats.prompt_tokens,),
    }


def moved(server: SimServer, before: dict) -> dict:
    return {
        name: tuple(now - then for now, then in zip(values, before[name], strict=True))
        for name, values in counters(server).items()
    }


def assert_counted(seen: dict, **expected: tuple[float, ...]) -> None:
    assert {name: seen[name] for name in expected} == expected


def ask(server: SimServer, tokens: list[int], name: str, **fields: Any) -> dict:
    status, answer = server.handle(Endpoint.COMPLETIONS, {"prompt": tokens, "max_tokens": 1} | fields, name)
    assert status == 200
    return answer


def pass_through(pair: SimPair, tokens: list[int], name: str, **fields: Any) -> dict:
    status, answer = through(pair, {"prompt": tokens, "max_tokens": 2, "return_token_ids": True} | fields, name)
    assert status == 200
    pair.settle()
    return answer


@pytest.mark.parametrize("connectors", [(NIXL,), (NIXL, OFFLOADING)])
def test_d_with_empty_caches_pulls_everything_from_p(connectors: tuple[Connector, ...]) -> None:
    pair = make_pair(connectors=connectors)
    pass_through(pair, PROMPT, "cold")
    p, d = counters(pair.prefill), counters(pair.decode)
    assert (p["prefix"], p["external"], p["sources"], p["nixl"]) == ((50, 0), (50, 0), (50, 0, 0), (0,))
    assert (d["prefix"], d["external"], d["sources"], d["nixl"]) == ((50, 0), (50, 50), (0, 0, 50), (4,))
    assert p["prompt_tokens"] == d["prompt_tokens"] == (50,)


def test_p_with_a_warm_prefix_cache() -> None:
    pair = make_pair(connectors=(NIXL,))
    pass_through(pair, PROMPT, "first")
    before = counters(pair.prefill)
    pass_through(pair, PROMPT, "second")
    seen = moved(pair.prefill, before)
    assert_counted(seen, prefix=(50, 48), external=(2, 0), sources=(2, 48, 0))


@pytest.mark.parametrize("connectors", [(NIXL,), (NIXL, OFFLOADING)])
def test_d_pulls_only_what_its_prefix_cache_lacks(connectors: tuple[Connector, ...]) -> None:
    pair = make_pair(connectors=connectors)
    ask(pair.decode, PROMPT[:33], "prime")
    pair.settle()
    before = counters(pair.decode)
    pass_through(pair, PROMPT, "partial")
    seen = moved(pair.decode, before)
    assert_counted(seen, prefix=(50, 32), external=(18, 18), sources=(0, 32, 18), nixl=(2,))
    assert not pair.ledger.wrong


def test_offloading_alone_restores_blocks_that_left_the_prefix_cache() -> None:
    pair = make_pair(connectors=(OFFLOADING,))
    first = ask(pair.prefill, PROMPT, "first", max_tokens=3)
    pair.settle()
    assert counters(pair.prefill)["store"] == (3,)
    assert pair.prefill.engine.reset_prefix_cache()
    before = counters(pair.prefill)
    again = ask(pair.prefill, PROMPT, "again", max_tokens=3)
    seen = moved(pair.prefill, before)
    assert_counted(seen, prefix=(50, 0), external=(50, 48), sources=(2, 0, 48), load=(3,))
    assert again["choices"][0]["text"] == first["choices"][0]["text"]


def test_offloading_restores_the_blocks_after_a_local_hit() -> None:
    pair = make_pair(connectors=(OFFLOADING,))
    ask(pair.prefill, PROMPT, "first")
    pair.settle()
    pair.prefill.engine.reset_prefix_cache()
    ask(pair.prefill, [*PROMPT[:16], 300], "brings one block back")
    pair.settle()
    before = counters(pair.prefill)
    ask(pair.prefill, PROMPT, "again")
    seen = moved(pair.prefill, before)
    assert_counted(seen, prefix=(50, 16), external=(34, 32), sources=(2, 16, 32), load=(2,))


def test_p_with_both_connectors_restores_and_hands_over() -> None:
    pair = make_pair()
    pass_through(pair, PROMPT, "first")
    pair.prefill.engine.reset_prefix_cache()
    pair.decode.engine.reset_prefix_cache()
    before_p, before_d = counters(pair.prefill), counters(pair.decode)
    pass_through(pair, PROMPT, "again")
    p, d = moved(pair.prefill, before_p), moved(pair.decode, before_d)
    assert (p["external"], p["sources"], p["nixl"], p["load"]) == ((50, 48), (2, 0, 48), (0,), (3,))
    # NIXL is first: D pulls the whole prompt from P although its own tier has three blocks.
    assert (d["external"], d["sources"], d["nixl"], d["load"]) == ((50, 50), (0, 0, 50), (4,), (0,))
    assert not pair.ledger.wrong


def test_d_with_offloading_first_only_notifies_p() -> None:
    pair = make_pair(connectors=(OFFLOADING, NIXL))
    pass_through(pair, PROMPT, "first")
    pair.decode.engine.reset_prefix_cache()
    before = counters(pair.decode)
    pass_through(pair, PROMPT, "again")
    seen = moved(pair.decode, before)
    assert_counted(seen, external=(50, 48), sources=(2, 0, 48), nixl=(0,), load=(3,))
    assert pair.prefill.engine.pool.usage == 0.0


def test_one_token_is_looked_up_twice_on_d() -> None:
    pair = make_pair()
    pass_through(pair, [300], "one")
    d = counters(pair.decode)
    assert_counted(d, prefix=(2, 0), external=(2, 1), sources=(1, 0, 0), nixl=(1,))


def test_of_a_prompt_of_whole_cached_blocks_d_pulls_the_last() -> None:
    pair = make_pair(connectors=(NIXL,))
    pass_through(pair, PROMPT[:48], "first")
    before = counters(pair.decode)
    pass_through(pair, PROMPT[:48], "again")
    seen = moved(pair.decode, before)
    assert_counted(seen, sources=(0, 32, 16), nixl=(1,))


def test_of_a_prompt_of_whole_cached_blocks_the_tier_loads_the_last() -> None:
    pair = make_pair(connectors=(OFFLOADING,))
    ask(pair.prefill, PROMPT[:48], "first")
    pair.settle()
    before = counters(pair.prefill)
    ask(pair.prefill, PROMPT[:48], "again")
    seen = moved(pair.prefill, before)
    assert_counted(seen, sources=(0, 32, 16), external=(16, 16), load=(1,))


def test_chunks_of_two_blocks_are_stored_and_loaded_whole() -> None:
    pair = make_pair(connectors=(OFFLOADING,), blocks_per_chunk=2)
    ask(pair.prefill, PROMPT, "first")
    pair.settle()
    assert counters(pair.prefill)["store"] == (2,)
    pair.prefill.engine.reset_prefix_cache()
    before = counters(pair.prefill)
    ask(pair.prefill, PROMPT, "again")
    seen = moved(pair.prefill, before)
    assert_counted(seen, sources=(18, 0, 32), load=(2,))


@pytest.mark.parametrize(("prompt_only", "stored"), [(True, 3), (False, 5)])
def test_generated_blocks_are_stored_only_if_configured(prompt_only: bool, stored: int) -> None:
    """Of 50 prompt tokens and 40 generated ones, all but the last have KV: 89 tokens fill 5 blocks."""
    pair = make_pair(connectors=(OFFLOADING,), offload_prompt_only=prompt_only)
    ask(pair.decode, PROMPT, "long", max_tokens=40)
    pair.settle()
    assert counters(pair.decode)["store"] == (stored,)


def test_bytes_of_a_block() -> None:
    pair = make_pair()
    pass_through(pair, PROMPT, "bytes")
    # 4 blocks x 4 layers x 16 tokens x 2 heads x (32 + 32) x 2 bytes.
    assert pair.decode.engine.stats.nixl_bytes.total == 4 * 4 * 16 * 2 * 64 * 2


def test_prompt_logprobs_skip_every_read_and_still_release_p() -> None:
    pair = make_pair()
    pass_through(pair, PROMPT, "first")
    before = counters(pair.decode)
    pass_through(pair, PROMPT, "scored", prompt_logprobs=0)
    seen = moved(pair.decode, before)
    assert_counted(seen, prefix=(0, 0), external=(50, 0), sources=(50, 0, 0), nixl=(0,))
    assert pair.prefill.engine.pool.usage == 0.0


def test_a_salt_isolates_the_prefix_cache() -> None:
    pair = make_pair(connectors=(OFFLOADING,))
    server = pair.prefill
    for name, salt, hit in (("a", None, 0), ("b", "x", 0), ("c", "x", 48), ("d", None, 48), ("e", "y", 0)):
        before = counters(server)
        ask(server, PROMPT, name, cache_salt=salt)
        pair.settle()
        assert moved(server, before)["prefix"] == (50, hit), name


def test_every_sequence_of_n_pulls_and_later_notifications_count_as_after_expiry() -> None:
    pair = make_pair()
    pass_through(pair, PROMPT, "three", n=3)
    assert_counted(counters(pair.decode), sources=(0, 0, 150), nixl=(12,))
    assert pair.prefill.engine.stats.notifications_after_expiry == 2


def test_prefix_caching_off_counts_no_queries() -> None:
    pair = make_pair(prefix_caching=False, connectors=(NIXL,))
    pass_through(pair, PROMPT, "first")
    pass_through(pair, PROMPT, "again")
    for server in pair.servers:
        assert counters(server)["prefix"] == (0, 0)
    assert counters(pair.decode)["sources"] == (0, 0, 100)


def test_a_longer_block_list_from_p_shifts_the_kv() -> None:
    """P generates two tokens: its 48-token prompt then needs a fourth block, and D reads the last three."""
    pair = make_pair(connectors=(NIXL,))
    body = prefill_body({"prompt": PROMPT[:48]}) | {"max_tokens": 2}
    _, answer = pair.prefill.handle(Endpoint.COMPLETIONS, body, "long")
    params = answer["kv_transfer_params"]
    assert len(params["remote_block_ids"][0]) == 4
    ask(pair.decode, PROMPT[:48], "long", kv_transfer_params=params)
    assert pair.ledger.wrong == {"long"}


def test_decode_blocks_twice_as_large_as_prefill_blocks() -> None:
    pair = make_pair(connectors=(NIXL,), decode={"block_size": 32})
    through_pair = pass_through(pair, PROMPT, "mixed")
    direct = ask(pair.prefill, PROMPT, "direct", max_tokens=2, return_token_ids=True)
    assert through_pair["choices"][0]["token_ids"] == direct["choices"][0]["token_ids"]
    assert pair.decode.engine.stats.nixl_bytes.total == 4 * pair.prefill.config.block_bytes
    assert not pair.ledger.wrong


def test_chunked_prefill_changes_nothing() -> None:
    whole, chunked = make_pair(), make_pair(max_num_batched_tokens=16)
    tokens = [pass_through(pair, PROMPT, "same")["choices"][0]["token_ids"] for pair in (whole, chunked)]
    assert tokens[0] == tokens[1]
    assert counters(whole.decode) == counters(chunked.decode)
    assert counters(chunked.prefill)["sources"] == (50, 0, 0)
