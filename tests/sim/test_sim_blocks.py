"""Block pool and offload tier: the eviction order of examples worked out by hand, and invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_transit import through

from harness.facts import Connector
from harness.scenario import Endpoint
from harness.sim import QUIET, SimConfig, SimPair
from harness.sim.blocks import BlockPool, KVMemory, Page
from harness.sim.prefix_cache import extend_hashes, longest_hit, root_hash


def test_the_null_block_is_never_allocated() -> None:
    pool = BlockPool(4)
    assert pool.take(3) == [1, 2, 3]
    assert pool.num_free == 0
    assert pool.usage == 1.0


def test_the_least_recently_used_block_and_the_tail_of_a_request_are_evicted_first() -> None:
    """Two requests of two cached blocks and one tail each: [1 2 | 3] and [4 5 | 6], freed in this order."""
    pool = BlockPool(8)
    first, second = pool.take(3), pool.take(3)
    for block, block_hash in zip((1, 2, 4, 5), (11, 12, 14, 15), strict=True):
        pool.cache(block, block_hash)
    pool.release(first)
    # Block 3 has no hash and goes to the head; blocks 2 and 1 go to the tail, the last block first.
    assert pool.free_order() == [3, 7, 2, 1]
    pool.release(second)
    assert pool.free_order() == [6, 3, 7, 2, 1, 5, 4]
    assert pool.take(4) == [6, 3, 7, 2]
    assert pool.find(12) is None
    assert pool.find(11) == 1


def test_a_hit_takes_a_block_out_of_the_queue() -> None:
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.cache(1, 11)
    pool.cache(2, 12)
    pool.release(blocks)
    assert pool.free_order() == [3, 2, 1]
    pool.touch([1])
    assert pool.free_order() == [3, 2]
    pool.release([1])
    assert pool.free_order() == [3, 2, 1]


def test_of_two_blocks_with_one_hash_the_second_is_found_after_the_first_is_evicted() -> None:
    pool = BlockPool(4)
    pool.take(2)
    pool.cache(1, 11)
    pool.cache(2, 11)
    assert pool.find(11) == 1
    pool.evict(1)
    assert pool.find(11) == 2


def test_reset_is_refused_while_a_block_is_held() -> None:
    pool = BlockPool(4)
    held = pool.take(1)
    pool.cache(1, 11)
    assert not pool.reset()
    pool.release(held)
    assert pool.reset()
    assert pool.find(11) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=40))
def test_no_block_is_lost_or_allocated_twice(steps: list[tuple[bool, int]]) -> None:
    pool, held = BlockPool(10), []
    for takes, count in steps:
        if takes and pool.num_free >= count:
            held.append(pool.take(count))
            pool.cache(held[-1][0], hash((len(held), count)))
        elif held:
            pool.release(held.pop(0))
        out = [block for blocks in held for block in blocks]
        assert sorted(out + pool.free_order()) == list(range(1, 10))


def test_hits_are_whole_blocks_and_leave_a_token() -> None:
    pool, tokens = BlockPool(8), list(range(300, 308))
    hashes: list[int] = []
    extend_hashes(hashes, tokens, 4, root_hash(None))
    for block, block_hash in zip(pool.take(2), hashes, strict=True):
        pool.cache(block, block_hash)
    # All 8 tokens are cached, of which at most 4 * floor(7 / 4) can be hit.
    assert longest_hit(pool, hashes, 8, 4) == [1]
    assert longest_hit(pool, hashes, 9, 4) == [1, 2]


def test_hashes_chain_and_carry_the_salt() -> None:
    plain: list[int] = []
    salted: list[int] = []
    swapped: list[int] = []
    extend_hashes(plain, [1, 2, 3, 4], 2, root_hash(None))
    extend_hashes(salted, [1, 2, 3, 4], 2, root_hash("s"))
    extend_hashes(swapped, [3, 4, 1, 2], 2, root_hash(None))
    assert len({*plain, *salted, *swapped}) == 6


def test_writing_a_row_keeps_the_other_rows_and_removes_the_taint() -> None:
    memory = KVMemory(3, 4)
    memory.write(1, Page((1, 2, 3, 4), tainted=True))
    memory.write_rows(1, 0, [9])
    assert memory.read(1) == Page((9, 2, 3, 4))
    assert memory.total([1, 2], 3) == 9 + 2 + 3


def tier_pair(chunks: int) -> SimPair:
    fields = {"noise": QUIET, "eos_rate": 0.0, "connectors": (Connector.OFFLOADING,)}
    return SimPair(SimConfig(offload_chunks=chunks, block_size=4, **fields), lambda: 0.0)


def serve(pair: SimPair, first: int, length: int, name: str) -> int:
    """Serve a prompt of ``length`` tokens from ``first`` on; return how many were loaded from the tier."""
    engine = pair.prefill.engine
    engine.reset_prefix_cache()
    before = engine.stats.external_hits
    body = {"prompt": list(range(first, first + length)), "max_tokens": 1}
    assert pair.prefill.handle(Endpoint.COMPLETIONS, body, name)[0] == 200
    pair.settle()
    return engine.stats.external_hits - before


def test_tier_evicts_the_oldest_prompt_from_its_end() -> None:
    """The tier has 4 chunks: A (2), B (2), and then C (1) evicts A's last chunk, but not A's first."""
    pair = tier_pair(4)
    serve(pair, 300, 9, "a")
    serve(pair, 400, 9, "b")
    serve(pair, 500, 5, "c")
    assert serve(pair, 400, 9, "b again") == 8
    assert serve(pair, 300, 9, "a again") == 4


def test_tier_keeps_the_chunks_of_a_repeated_prompt() -> None:
    pair = tier_pair(4)
    serve(pair, 300, 9, "a")
    serve(pair, 400, 9, "b")
    assert serve(pair, 300, 9, "a is recent now") == 8
    serve(pair, 500, 9, "c")
    assert serve(pair, 300, 9, "a again") == 8
    assert serve(pair, 400, 9, "b again") == 0


def test_an_offer_larger_than_the_tier_stores_nothing() -> None:
    pair = tier_pair(2)
    serve(pair, 300, 13, "three chunks")
    stats = pair.prefill.engine.stats
    assert stats.store_sizes.count == 0
    assert stats.allocation_failures > 0


def test_preemption_frees_blocks_and_keeps_the_tokens_right() -> None:
    """Two requests of 8 tokens that grow to 5 blocks each, in a pool of 7."""
    small = SimConfig(noise=QUIET, eos_rate=0.0, connectors=(), block_size=4, num_blocks=8, audit_always=True)
    tight, roomy = SimPair(small, lambda: 0.0), SimPair(SimConfig(noise=QUIET, eos_rate=0.0), lambda: 0.0)
    bodies = {
        name: {"prompt": list(range(first, first + 8)), "max_tokens": 12, "return_token_ids": True}
        for name, first in (("a", 300), ("b", 400))
    }
    jobs = {name: tight.decode.submit(Endpoint.COMPLETIONS, body, name) for name, body in bodies.items()}
    tight.settle()
    assert tight.decode.engine.stats.preemptions > 0
    assert tight.decode.engine.stats.prompt_tokens == 16
    assert tight.decode.engine.stats.prefix_queries == 16
    for name, body in bodies.items():
        expected = roomy.decode.handle(Endpoint.COMPLETIONS, body, name)[1]["choices"][0]["token_ids"]
        assert tight.decode.reply(jobs[name])[1]["choices"][0]["token_ids"] == expected
    assert not tight.ledger.wrong


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33])
def test_no_block_is_held_when_all_requests_have_ended(length: int) -> None:
    pair = SimPair(SimConfig(), lambda: 0.0)
    assert through(pair, {"prompt": list(range(300, 300 + length)), "max_tokens": 3}, "x")[0] == 200
    pair.settle()
    assert [server.engine.pool.usage for server in pair.servers] == [0.0, 0.0]
