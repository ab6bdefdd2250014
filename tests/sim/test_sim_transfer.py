"""Leases, stale references and malformed parameters, with a clock that jumps."""

import json
from typing import Any

import pytest

from harness.facts import Connector
from harness.run.references import altered
from harness.scenario import Altered, Endpoint
from harness.sim import QUIET, SimConfig, SimPair
from harness.sim.transit import prefill_body

C = Endpoint.COMPLETIONS
PROMPT = list(range(300, 350))


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def make_pair(clock: Clock, **fields: Any) -> SimPair:
    return SimPair(SimConfig(noise=QUIET, eos_rate=0.0, audit_always=True, **fields), clock)


def prefill(pair: SimPair, tokens: list[int], name: str) -> dict:
    status, answer = pair.prefill.handle(C, prefill_body({"prompt": tokens}), name)
    assert status == 200
    return answer["kv_transfer_params"]


def decode(pair: SimPair, tokens: list[int], params: dict, name: str) -> tuple[int, dict]:
    return pair.decode.handle(C, {"prompt": tokens, "max_tokens": 4, "kv_transfer_params": params}, name)


def test_parameters_have_vllms_keys() -> None:
    params = prefill(make_pair(Clock()), PROMPT, "keys")
    remote = {f"remote_{name}" for name in ("block_ids", "engine_id", "request_id", "host", "port")}
    assert params.keys() >= remote | {"do_remote_prefill", "do_remote_decode", "tp_size"}
    assert (params["do_remote_prefill"], params["do_remote_decode"]) == (True, False)
    assert len(params["remote_block_ids"]) == 1
    assert len(params["remote_block_ids"][0]) == 4


def test_a_lease_holds_until_it_ends() -> None:
    clock = Clock()
    pair = make_pair(clock)
    prefill(pair, PROMPT, "left")
    engine = pair.prefill.engine
    clock.time = 29.9
    pair.settle()
    assert engine.pool.num_blocks - 1 - engine.pool.num_free == 4
    assert engine.next_deadline == 30.0
    clock.time = 30.0
    pair.settle()
    assert engine.pool.usage == 0.0
    assert engine.stats.expired_requests == 1


def test_a_notification_releases_blocks_at_once() -> None:
    pair = make_pair(Clock())
    decode(pair, PROMPT, prefill(pair, PROMPT, "x"), "x")
    pair.settle()
    assert pair.prefill.engine.pool.usage == 0.0
    assert pair.prefill.engine.stats.expired_requests == 0


def test_a_read_after_the_lease_and_reuse_gets_another_prompts_kv() -> None:
    clock = Clock()
    pair = make_pair(clock, prefill={"num_blocks": 5}, connectors=(Connector.NIXL,))
    params = prefill(pair, PROMPT, "slow")
    clock.time = 31.0
    pair.settle()
    # This prompt needs all four blocks of P's pool, so it overwrites them.
    prefill(pair, list(range(400, 450)), "next")
    status, _ = decode(pair, PROMPT, params, "slow")
    pair.settle()
    assert status == 200
    assert pair.ledger.wrong == {"slow"}
    assert pair.prefill.engine.stats.notifications_after_expiry == 1


def test_a_read_after_the_lease_but_before_reuse_is_right() -> None:
    clock = Clock()
    pair = make_pair(clock)
    params = prefill(pair, PROMPT, "slow")
    clock.time = 31.0
    pair.settle()
    assert decode(pair, PROMPT, params, "slow")[0] == 200
    pair.settle()
    assert not pair.ledger.wrong
    assert pair.prefill.engine.stats.notifications_after_expiry == 1


def test_used_parameters_work_again_while_the_blocks_are_intact() -> None:
    pair = make_pair(Clock(), connectors=(Connector.NIXL,))
    params = prefill(pair, PROMPT, "x")
    assert decode(pair, PROMPT, params, "x")[0] == 200
    pair.settle()
    pair.decode.engine.reset_prefix_cache()
    assert decode(pair, PROMPT, params, "x2")[0] == 200
    pair.settle()
    assert pair.prefill.engine.stats.notifications_after_expiry == 1


def test_a_missing_key_hangs_the_request() -> None:
    pair = make_pair(Clock())
    params = prefill(pair, PROMPT, "x")
    del params["remote_host"]
    assert decode(pair, PROMPT, params, "x")[0] == 504
    assert pair.decode.engine.pool.usage > 0


def test_empty_block_ids_kill_the_engine() -> None:
    pair = make_pair(Clock())
    params = prefill(pair, PROMPT, "x") | {"remote_block_ids": []}
    assert decode(pair, PROMPT, params, "x")[0] == 500
    assert pair.decode.handle(C, {"prompt": PROMPT}, "later")[0] == 500


@pytest.mark.parametrize("change", [{"remote_engine_id": "no-such-engine"}, {"remote_port": 1}])
def test_a_failed_handshake_is_an_error_and_counted(change: dict) -> None:
    pair = make_pair(Clock())
    assert decode(pair, PROMPT, prefill(pair, PROMPT, "x") | change, "x")[0] == 500
    stats = pair.decode.engine.stats
    assert (stats.failed_handshakes, stats.success["error"]) == (1, 1)
    assert pair.decode.engine.pool.usage == 0.0


def test_block_ids_out_of_range_fail_the_transfer() -> None:
    pair = make_pair(Clock())
    params = prefill(pair, PROMPT, "x") | {"remote_block_ids": [[9999, 9998, 9997, 9996]]}
    assert decode(pair, PROMPT, params, "x")[0] == 500
    assert pair.decode.engine.stats.failed_transfers == 1


def test_recompute_policy_computes_the_rest_and_is_right() -> None:
    """D has 48 of 50 tokens cached. The pull of the last block fails, but its tokens still count as external."""
    pair = make_pair(Clock(), load_failure_policy="recompute", connectors=(Connector.NIXL,))
    pair.decode.handle(C, {"prompt": PROMPT[:49], "max_tokens": 1}, "prime")
    params = prefill(pair, PROMPT, "x") | {"remote_engine_id": "no-such-engine"}
    stats = pair.decode.engine.stats
    before = (stats.local_compute, stats.local_cache_hit, stats.external_kv_transfer)
    assert decode(pair, PROMPT, params, "x")[0] == 200
    after = (stats.local_compute, stats.local_cache_hit, stats.external_kv_transfer)
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (0, 48, 2)
    assert stats.nixl_bytes.count == 0
    assert not pair.ledger.wrong


def test_an_abort_before_scheduling_releases_the_blocks_on_p() -> None:
    pair = make_pair(Clock())
    params = prefill(pair, PROMPT, "x")
    job = pair.decode.submit(C, {"prompt": PROMPT, "kv_transfer_params": params}, "x")
    pair.decode.abort(job)
    pair.settle()
    assert pair.prefill.engine.pool.usage == 0.0
    assert pair.decode.engine.stats.prompt_tokens == 0


def test_a_request_that_d_refuses_releases_the_blocks_on_p() -> None:
    pair = make_pair(Clock())
    params = prefill(pair, PROMPT, "x")
    body = {"prompt": PROMPT, "max_tokens": 10**6, "kv_transfer_params": params}
    assert pair.decode.handle(C, body, "x")[0] == 400
    pair.settle()
    assert pair.prefill.engine.pool.usage == 0.0


def test_a_waiting_request_keeps_its_lease() -> None:
    """D has no room for the request; its heartbeats, one every 5 s, renew P's lease to 20 s after the last one."""
    clock = Clock()
    pair = make_pair(clock, decode={"max_num_seqs": 1})
    pair.decode.submit(C, {"prompt": [300], "max_tokens": 50}, "long")
    pair.decode.submit(C, {"prompt": PROMPT, "kv_transfer_params": prefill(pair, PROMPT, "x")}, "x")
    for second in range(40):
        clock.time = float(second)
        pair.decode.step()
        pair.prefill.settle()
    assert pair.prefill.engine.stats.expired_requests == 0
    assert pair.prefill.engine.next_deadline == 35.0 + 20.0


def test_two_prefill_and_two_decode_servers_find_each_other() -> None:
    pair = make_pair(Clock(), prefills=2, decodes=2)
    for index, (p, d) in enumerate(zip(pair.servers[:2], reversed(pair.servers[2:]), strict=True)):
        _, answer = p.handle(C, prefill_body({"prompt": PROMPT}), f"x{index}")
        body = {"prompt": PROMPT, "kv_transfer_params": answer["kv_transfer_params"]}
        assert d.handle(C, body, f"x{index}")[0] == 200
    pair.settle()
    assert not pair.ledger.wrong
    assert all(server.engine.pool.usage == 0 for server in pair.servers)


@pytest.mark.parametrize(("stream", "dead"), [(True, None), (False, "KeyError: 'remote_request_id'")])
def test_the_client_of_a_request_that_lacks_a_name_leaves_a_dead_engine_or_held_blocks(
    stream: bool, dead: str | None
) -> None:
    pair = make_pair(Clock())
    params = {key: value for key, value in prefill(pair, PROMPT, "x").items() if key != "remote_request_id"}
    job = pair.decode.submit(C, {"prompt": PROMPT, "kv_transfer_params": params, "stream": stream}, "x")
    pair.decode.step()
    pair.decode.abort(job)
    pair.settle()
    assert pair.decode.engine.dead == dead
    assert pair.decode.engine.pool.usage > 0


RIGHT = ("unknown-request", "huge", "text-ids", "fractions", "other-tp")
WRONG = ("reordered", "too-many")
ENDS = ("too-few", "no-blocks", "no-groups", "null-blocks", "text-blocks")


@pytest.mark.parametrize("how", [one for one in Altered if one is not Altered.LACKS_REQUEST])
def test_each_altered_reference_has_vllms_result(how: Altered) -> None:
    pair = make_pair(Clock())
    _, right = pair.prefill.handle(C, {"prompt": PROMPT, "max_tokens": 4, "cache_salt": "right"}, "right")
    params = json.loads(altered(json.dumps(prefill(pair, PROMPT, "x")), how))
    status, answer = decode(pair, PROMPT, params, "x")
    assert status == (200 if how in RIGHT + WRONG else 400 if how is Altered.TEXT else 500)
    assert bool(pair.decode.engine.dead) == (how in ENDS)
    if status == 200:
        assert (answer["choices"][0]["text"] == right["choices"][0]["text"]) == (how in RIGHT)
