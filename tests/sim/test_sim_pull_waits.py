"""A pull whose answer comes later, as from another process: the engine goes on meanwhile."""

import pytest
from held_fabric import HeldFabric

from harness.facts import Connector, Role
from harness.scenario import Endpoint
from harness.sim import QUIET, Ledger, SimConfig, SimPair, SimServer
from harness.sim.fabric import Address, Reached
from harness.sim.transit import prefill_body

PROMPT = list(range(300, 350))
C = Endpoint.COMPLETIONS


class Decode:
    """A decode server beside a pair whose prefill server the test can hand out as the peer."""

    def __init__(self, **fields: object) -> None:
        self.time = 0.0
        config = SimConfig(noise=QUIET, eos_rate=0.0, connectors=(Connector.NIXL,), **fields)  # type: ignore[arg-type]
        self.pair = SimPair(config, self.now)
        self.fabric = HeldFabric()
        self.server = SimServer("decode-0", Role.DECODE, config, self.now, fabric=self.fabric, ledger=Ledger())
        self.engine = self.server.engine
        assert self.pair.prefill.engine.nixl
        self.peer = self.pair.prefill.engine.nixl

    def now(self) -> float:
        return self.time

    def body(self, name: str = "x", max_tokens: int = 4) -> dict:
        _, answer = self.pair.prefill.handle(C, prefill_body({"prompt": PROMPT}), name)
        return {"prompt": PROMPT, "max_tokens": max_tokens, "kv_transfer_params": answer["kv_transfer_params"]}


def test_a_request_waits_for_its_kv_and_others_are_served_meanwhile() -> None:
    decode = Decode()
    job = decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    assert not job.finished
    assert not decode.engine.has_work
    assert decode.server.handle(C, {"prompt": PROMPT[:20], "max_tokens": 3}, "other")[0] == 200
    decode.fabric.answer(Reached(decode.peer))
    decode.server.settle()
    assert decode.server.reply(job)[0] == 200
    assert decode.engine.stats.external_kv_transfer == 50
    assert decode.engine.pool.usage == 0.0


def test_an_answer_wakes_the_engine() -> None:
    decode = Decode()
    woken: list[bool] = []
    assert decode.engine.nixl
    decode.engine.nixl.wake = lambda: woken.append(True)
    decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    assert not woken
    decode.fabric.answer(Reached(decode.peer))
    assert woken
    assert decode.engine.has_work


@pytest.mark.parametrize("reached", ["handshake", "lost"])
def test_a_pull_without_an_answer_has_failed(reached: str) -> None:
    decode = Decode()
    job = decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    decode.fabric.answer(Reached(None) if reached == "handshake" else Reached(decode.peer, lost=True))
    decode.server.settle()
    assert decode.server.reply(job)[0] == 500
    stats = decode.engine.stats
    assert (stats.failed_handshakes, stats.failed_transfers) == ((1, 0) if reached == "handshake" else (0, 1))
    assert stats.nixl_bytes.count == 0
    assert decode.engine.pool.usage == 0.0


def test_the_recompute_policy_computes_what_was_lost() -> None:
    decode = Decode(load_failure_policy="recompute")
    job = decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    decode.fabric.answer(Reached(decode.peer, lost=True))
    decode.server.settle()
    direct = decode.pair.decode.handle(C, {"prompt": PROMPT, "max_tokens": 4}, "x")
    status, answer = decode.server.reply(job)
    assert (status, answer["choices"][0]["text"]) == (200, direct[1]["choices"][0]["text"])


@pytest.mark.parametrize("lost", [False, True])
def test_blocks_of_an_aborted_request_are_held_until_its_pull_ends_and_then_freed(lost: bool) -> None:
    """P's pages may still arrive in them. The request has ended: it must not end a second time, with an error."""
    decode = Decode()
    job = decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    decode.server.abort(job)
    decode.server.settle()
    assert decode.engine.pool.usage > 0
    decode.fabric.answer(Reached(decode.peer, lost=lost))
    decode.server.settle()
    assert decode.engine.pool.usage == 0.0
    assert not decode.engine.stats.success


def test_leases_are_renewed_while_a_pull_is_under_way() -> None:
    decode = Decode()
    decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    assert decode.engine.next_deadline == 5.0
    decode.fabric.renewed.clear()
    decode.time = 5.0
    decode.server.settle()
    assert len(decode.fabric.renewed) == 1
    assert decode.engine.next_deadline == 10.0
    decode.fabric.answer(Reached(decode.peer))
    decode.server.settle()
    decode.time = 10.0
    decode.server.settle()
    assert len(decode.fabric.renewed) == 1
    assert decode.engine.next_deadline is None


class Deaf:
    """P's connector after its connection broke: the pages have arrived, the notification does not."""

    def __init__(self, decode: Decode) -> None:
        self.layout, self.page, self.still_holds = decode.peer.layout, decode.peer.page, decode.peer.still_holds
        self.lapse = decode.peer.lapse

    def notify(self, request_id: str) -> bool:
        return not request_id


def test_a_notification_that_cannot_be_sent_is_counted_and_the_request_goes_on() -> None:
    decode = Decode()
    job = decode.server.submit(C, decode.body(), "x")
    decode.server.settle()
    decode.fabric.answer(Reached(Deaf(decode)))
    decode.server.settle()
    assert decode.server.reply(job)[0] == 200
    assert decode.engine.stats.failed_notifications == 1


def test_a_refused_request_releases_the_blocks_on_p() -> None:
    decode = Decode()
    body = decode.body() | {"max_tokens": 10**6}
    assert decode.server.handle(C, body, "x")[0] == 400
    params = body["kv_transfer_params"]
    assert decode.fabric.released == [(Address.of(params), params["remote_request_id"])]
