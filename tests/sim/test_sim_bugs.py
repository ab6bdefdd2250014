"""Every planted bug has exactly the effects that its table entry lists, and runs without bugs read no wrong KV."""

import itertools
import random
from typing import Any

import pytest
from sim_transit import through, through_together

from harness.errors import UsageError
from harness.facts import Connector
from harness.scenario import Endpoint
from harness.sim import BUGS, QUIET, PlantedBug, SimConfig, SimPair
from harness.sim.pulls import PULL_BUGS
from harness.sim.transit import prefill_body

C = Endpoint.COMPLETIONS
B = 16
OUTPUT_BUGS = sorted(name for name, bug in BUGS.items() if "outputs" in bug.signs)
NEED_OTHERS = {"foreign_blocks", "expired_read", "bystander_write", "offload_wrong_block", "misaligned_hit"}


def make_pair(*bugs: str, rate: float = 1.0, **fields: Any) -> SimPair:
    planted = tuple(PlantedBug(bug, rate) for bug in bugs)
    return SimPair(SimConfig(noise=QUIET, eos_rate=0.0, bugs=planted, **fields), lambda: 0.0)


def prompt(seed: int, length: int = 50) -> list[int]:
    rng = random.Random(seed)  # noqa: S311 - seeded test data
    return [rng.randrange(264, 4096) for _ in range(length)]


def body(seed: int, length: int = 50, **fields: Any) -> dict:
    return {"prompt": prompt(seed, length), "max_tokens": 6, "return_token_ids": True} | fields


def tokens_of(answer: dict) -> list[int]:
    return answer["choices"][0]["token_ids"]


def right_tokens(request: dict) -> list[int]:
    return tokens_of(make_pair().decode.handle(C, request, "right_tokens")[1])


def run(pair: SimPair, seed: int, name: str, length: int = 50, **fields: Any) -> dict:
    status, answer = through(pair, body(seed, length, **fields), name)
    assert status == 200
    pair.settle()
    return answer


def struck_once(bug: str, length: int = 50) -> SimPair:
    """Make a pair with this bug, and serve one request."""
    pair = make_pair(bug)
    run(pair, 1, "x", length)
    return pair


def blocks_moved(pair: SimPair) -> float:
    return pair.decode.engine.stats.nixl_bytes.total / pair.config.block_bytes


def test_every_bug_has_a_row_and_a_sign() -> None:
    assert all(bug.row and bug.what and bug.signs for bug in BUGS.values())
    assert PULL_BUGS.keys() <= BUGS.keys()
    known = {"outputs", "drift", "sources", "bytes", "failures", "leaks", "probe", "counters", "client"}
    assert set().union(*(bug.signs for bug in BUGS.values())) <= known


def test_an_unknown_bug_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="No such planted bug"):
        make_pair("no_such_bug")


@pytest.mark.parametrize("name", sorted(set(OUTPUT_BUGS) - NEED_OTHERS))
def test_damage_changes_the_output_and_is_known_to_the_ledger(name: str) -> None:
    pair = make_pair(name)
    answer = run(pair, 1, "struck")
    assert pair.ledger.struck[name] == {"struck"}
    assert pair.ledger.wrong == {"struck"}
    assert tokens_of(answer) != right_tokens(body(1))


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_bug_at_rate_zero_changes_nothing(name: str) -> None:
    pair, clean = make_pair(name, rate=0.0), make_pair()
    for seed in range(3):
        assert run(pair, seed, f"r{seed}") == run(clean, seed, f"r{seed}")
    assert [s.metrics() for s in pair.servers] == [s.metrics() for s in clean.servers]
    assert not pair.ledger.planted


def test_a_bug_strikes_its_share_of_requests_and_always_the_same_ones() -> None:
    struck = []
    for _ in range(2):
        pair = make_pair("flipped_byte", rate=0.25)
        for seed in range(200):
            run(pair, seed, f"r{seed}", 20)
        struck.append(pair.ledger.wrong)
    assert struck[0] == struck[1]
    assert 30 < len(struck[0]) < 70


def test_undamaged_requests_beside_damaged_ones_stay_right() -> None:
    pair = make_pair("shifted_rows", rate=0.5)
    for seed in range(40):
        answer = run(pair, seed, f"r{seed}")
        assert (tokens_of(answer) != right_tokens(body(seed))) == (f"r{seed}" in pair.ledger.wrong)


def test_dropped_params_make_d_compute_and_leave_blocks_held_on_p() -> None:
    pair = make_pair("dropped_params")
    assert tokens_of(run(pair, 1, "x")) == right_tokens(body(1))
    stats = pair.decode.engine.stats
    assert (stats.local_compute, stats.external_kv_transfer, stats.nixl_bytes.count) == (50, 0, 0)
    assert pair.prefill.engine.pool.usage > 0


def test_ignoring_nixl_moves_nothing() -> None:
    pair = make_pair("ignores_nixl")
    assert tokens_of(run(pair, 1, "x")) == right_tokens(body(1))
    assert pair.decode.engine.stats.external_kv_transfer == 0
    assert blocks_moved(pair) == 0


def test_ignoring_offload_stores_nothing() -> None:
    pair = make_pair("ignores_offload")
    assert tokens_of(run(pair, 1, "x")) == right_tokens(body(1))
    assert blocks_moved(pair) == 4
    assert [server.engine.stats.store_sizes.count for server in pair.servers] == [0, 0]


def test_a_failed_load_is_counted_and_answered_with_wrong_tokens() -> None:
    pair = make_pair("failed_load_200")
    assert tokens_of(run(pair, 1, "x")) != right_tokens(body(1))
    stats = pair.decode.engine.stats
    assert (stats.failed_transfers, stats.nixl_bytes.count, stats.external_kv_transfer) == (1, 0, 50)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("stale_tail", 3),
        ("truncated_region", 2),
        ("oversized_region", 5),
        ("chunked_partial_list", 2),
        ("bytes_doubled", 8),
        ("bytes_lost", 0),
        ("full_hit_wrong", 4),
        ("flipped_byte", 4),
    ],
)
def test_bytes_that_each_bug_shows(name: str, blocks: int) -> None:
    pair = struck_once(name)
    assert blocks_moved(pair) == blocks


def test_expired_read_gives_another_prompts_kv_and_counts() -> None:
    pair = make_pair("expired_read")
    # The bug cannot strike the first request, because no other request's KV is known yet.
    run(pair, 1, "first")
    answer = run(pair, 2, "second")
    assert pair.ledger.wrong == {"second"}
    assert tokens_of(answer) != right_tokens(body(2))
    stats = pair.prefill.engine.stats
    assert (stats.expired_requests, stats.notifications_after_expiry) == (1, 1)


def test_foreign_kv_gives_the_foreign_requests_answer() -> None:
    """The prompts end with the same token, so D gives the second request the same answer as the owner of the KV."""
    pair = make_pair("foreign_blocks")
    own, other = [*prompt(1, 49), 300], [*prompt(2, 49), 300]
    fields = {"max_tokens": 6, "return_token_ids": True}
    _, first = through(pair, {"prompt": other} | fields, "owner")
    _, second = through(pair, {"prompt": own} | fields, "thief")
    assert tokens_of(second) == tokens_of(first) == right_tokens({"prompt": other} | fields)
    assert pair.ledger.wrong == {"thief"}
    stats = [server.engine.stats for server in pair.servers]
    assert all(s.expired_requests == s.failed_transfers == s.notifications_after_expiry == 0 for s in stats)


def test_a_bystander_write_damages_the_victim_and_not_the_writer() -> None:
    pair = make_pair("bystander_write", rate=0.3)
    requests = {f"r{seed}": body(seed, 40 + seed % 5, max_tokens=20) for seed in range(12)}
    answers = {}
    for start in range(0, 12, 4):
        names = list(requests)[start : start + 4]
        answers |= staggered(pair, {name: requests[name] for name in names})
    assert pair.ledger.victims
    assert pair.ledger.wrong <= pair.ledger.victims
    for name, answer in answers.items():
        assert (tokens_of(answer) != right_tokens(requests[name])) == (name in pair.ledger.wrong), name
    assert pair.ledger.wrong


def staggered(pair: SimPair, requests: dict[str, dict]) -> dict[str, dict]:
    """Submit each request while the requests before it are being decoded."""
    jobs = {}
    for name, request in requests.items():
        _, handed = pair.prefill.handle(C, prefill_body(request), name)
        params = {"kv_transfer_params": handed["kv_transfer_params"]}
        jobs[name] = pair.decode.submit(C, request | params, name)
        for _ in range(3):
            pair.decode.step()
    pair.settle()
    return {name: pair.decode.reply(job)[1] for name, job in jobs.items()}


def test_leaked_blocks_are_never_released() -> None:
    pair = struck_once("leaked_blocks")
    pair.prefill.engine.now = lambda: 1e9
    pair.settle()
    assert pair.prefill.engine.pool.num_blocks - 1 - pair.prefill.engine.pool.num_free == 4


def test_one_leaked_block_is_held_and_the_others_are_free() -> None:
    pair = struck_once("leaked_block")
    pool = pair.prefill.engine.pool
    pair.prefill.engine.now = lambda: 1e9
    pair.settle()
    assert pool.num_blocks - 1 - pool.num_free == 1
    assert pair.decode.engine.pool.usage == 0


def test_of_requests_that_have_the_same_id_others_leak_a_block_in_each_load() -> None:
    pair = make_pair("leaked_block", rate=0.5)
    held = [0]
    for seed in range(16):
        run(pair, seed, "x")
        held.append(pair.prefill.engine.pool.num_blocks - 1 - pair.prefill.engine.pool.num_free)
    assert {later - earlier for earlier, later in itertools.pairwise(held)} == {0, 1}


@pytest.mark.parametrize(("length", "leaks"), [(47, False), (48, True), (49, False)])
def test_exact_block_leak_needs_whole_blocks(length: int, leaks: bool) -> None:
    pair = struck_once("exact_block_leak", length=length)
    assert (pair.prefill.engine.pool.usage > 0) == leaks


def test_a_hung_request_never_ends() -> None:
    pair = make_pair("hung_request")
    assert through(pair, body(1), "x")[0] == 504
    assert pair.decode.engine.pool.usage > 0


def test_misaligned_hit_needs_a_hit() -> None:
    pair = make_pair("misaligned_hit")
    assert tokens_of(run(pair, 1, "cold")) == right_tokens(body(1))
    longer = {"prompt": [*prompt(1, 48), *prompt(9, 30)], "max_tokens": 6, "return_token_ids": True}
    status, answer = through(pair, longer, "warm")
    assert status == 200
    assert tokens_of(answer) != right_tokens(longer)
    assert pair.ledger.wrong == {"warm"}
    assert pair.decode.engine.stats.local_cache_hit == 48


def test_offload_restores_another_chunk() -> None:
    pair = make_pair("offload_wrong_block")
    run(pair, 1, "a")
    run(pair, 2, "b")
    assert not pair.ledger.wrong
    pair.prefill.engine.reset_prefix_cache()
    answer = tokens_of(pair.prefill.handle(C, body(1), "again")[1])
    assert answer != right_tokens(body(1))
    assert pair.ledger.wrong == {"again"}
    assert pair.prefill.engine.stats.load_sizes.total == 3 * pair.config.block_bytes


def test_recompute_at_wrong_offsets_is_answered() -> None:
    pair = make_pair("recompute_wrong_offset")
    assert tokens_of(run(pair, 1, "x")) != right_tokens(body(1))
    assert pair.decode.engine.stats.failed_transfers == 1


def test_swapped_blocks_poison_later_hits_only() -> None:
    pair = make_pair("swapped_blocks", connectors=(Connector.NIXL,))
    assert tokens_of(run(pair, 1, "swapped")) == right_tokens(body(1))
    assert not pair.ledger.wrong
    later = {"prompt": [*prompt(1, 16), *prompt(7, 10)], "max_tokens": 6, "return_token_ids": True}
    assert tokens_of(pair.decode.handle(C, later, "later")[1]) != right_tokens(later)
    assert pair.ledger.wrong == {"later"}


def test_scaled_kv_moves_logprobs_and_rarely_tokens() -> None:
    pair, clean = make_pair("scaled_kv"), make_pair()
    moved, changed = [], 0
    for seed in range(60):
        scaled = run(pair, seed, f"r{seed}", logprobs=1)["choices"][0]
        plain = run(clean, seed, f"r{seed}", logprobs=1)["choices"][0]
        changed += scaled["token_ids"] != plain["token_ids"]
        moved.append(abs(scaled["logprobs"]["token_logprobs"][0] - plain["logprobs"]["token_logprobs"][0]))
    assert 0 < changed < 60
    assert sum(moved) / 60 > 0.03
    assert pair.ledger.wrong == {f"r{seed}" for seed in range(60)}


@pytest.mark.parametrize(("name", "total"), [("source_doubled", 100), ("source_negative", 0)])
def test_sources_that_do_not_add_up(name: str, total: int) -> None:
    pair = make_pair(name)
    assert tokens_of(run(pair, 1, "x")) == right_tokens(body(1))
    stats = pair.decode.engine.stats
    assert stats.prompt_tokens == 50
    assert stats.local_compute + stats.local_cache_hit + stats.external_kv_transfer == total


def sample(pair: SimPair, text: str) -> float:
    lines = pair.decode.metrics().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(text))


def test_legacy_offload_bytes_disagree() -> None:
    clean, pair = make_pair(), make_pair("legacy_offload_mismatch")
    for each in (clean, pair):
        run(each, 1, "x")
    flat, legacy = "vllm:kv_offload_store_bytes_total", "vllm:kv_offload_total_bytes_total"
    assert sample(clean, flat) == sample(clean, legacy) > 0
    assert sample(pair, legacy) - sample(pair, flat) == pair.config.block_bytes


def test_failed_notification_is_missing_from_failed_transfers() -> None:
    pair = struck_once("notification_uncounted")
    assert sample(pair, "vllm:nixl_num_failed_notifications_total") == 1
    assert sample(pair, "vllm:nixl_num_failed_transfers_total") == 0
    assert pair.prefill.engine.pool.usage > 0


def test_counters_start_again() -> None:
    pair = struck_once("counter_reset")
    assert sample(pair, "vllm:prompt_tokens_total") == 0
    assert sample(pair, "vllm:nixl_bytes_transferred_sum") == 0


def test_queries_doubled() -> None:
    pair = struck_once("queries_doubled")
    assert pair.decode.engine.stats.prefix_queries == 100


@pytest.mark.parametrize(
    ("name", "status"),
    [("handover_missing", 502), ("unknown_engine", 500), ("handshake_failed", 500), ("spurious_400", 400)],
)
def test_bugs_that_the_client_sees(name: str, status: int) -> None:
    assert through(make_pair(name), body(1), "x")[0] == status


def test_an_error_in_an_answer_with_status_200() -> None:
    choice = run(make_pair("error_in_200"), 1, "x")["choices"][0]
    assert (choice["finish_reason"], choice["token_ids"]) == ("error", [])


def test_lost_fields_change_the_length() -> None:
    assert len(tokens_of(run(make_pair("dropped_fields"), 1, "x"))) == 16


def test_clean_runs_read_no_wrong_kv() -> None:
    pair = SimPair(SimConfig(audit_always=True, num_blocks=300, offload_chunks=64), lambda: 0.0)
    rng = random.Random(4)  # noqa: S311 - seeded test data
    roots = [prompt(seed, 64) for seed in range(4)]
    for batch in range(25):
        bodies = {
            f"r{batch}-{index}": {
                "prompt": [
                    *rng.choice(roots)[: rng.randrange(64)],
                    *prompt(rng.randrange(10**6), rng.randrange(1, 60)),
                ],
                "max_tokens": 8,
            }
            for index in range(16)
        }
        answers = through_together(pair, bodies)
        assert all(status == 200 for status, _ in answers.values())
        pair.settle()
    assert not pair.ledger.wrong
    assert [server.engine.pool.usage for server in pair.servers] == [0.0, 0.0]
    stats = pair.decode.engine.stats
    assert stats.local_compute + stats.local_cache_hit + stats.external_kv_transfer == stats.prompt_tokens
