"""Servers that reach each other over sockets: transfers, and what becomes of them when the other side is gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from alone import AlonePair, alone_pair
from polling import until
from sim_transit import through_together

from harness.facts import Connector
from harness.sim import BUGS, QUIET, PlantedBug, SimConfig, SimPair
from harness.sim.pulls import PULL_BUGS
from harness.sim.wire import message, receive

PROMPT = list(range(300, 350))
BODY = {"prompt": PROMPT, "max_tokens": 5}


async def test_a_transfer_over_a_socket_is_one_in_shared_memory() -> None:
    async with alone_pair(audit_always=True) as pair:
        status, answer = await pair.through(BODY, "x")
        shared = SimPair(pair.config, lambda: 0.0)
        (expected,) = through_together(shared, {"x": BODY}).values()
        assert (status, answer["choices"]) == (expected[0], expected[1]["choices"])
        decode, prefill = pair.engine("decode-0"), pair.engine("prefill-0")
        assert decode.stats.external_kv_transfer == 50
        assert decode.stats.nixl_bytes.total == shared.decode.engine.stats.nixl_bytes.total > 0
        assert not decode.model.ledger.wrong
        await until(lambda: not prefill.pool.usage, "P was not notified")
        assert prefill.stats.expired_requests == 0


async def test_many_transfers_at_once() -> None:
    async with alone_pair() as pair:
        bodies = {f"r{n}": BODY | {"prompt": [264 + n, *PROMPT]} for n in range(48)}
        results = await asyncio.gather(*(pair.through(body, name) for name, body in bodies.items()))
        assert {status for status, _ in results} == {200}
        stats = pair.engine("decode-0").stats
        assert (stats.local_compute, stats.external_kv_transfer) == (0, 48 * 51)


async def test_parameters_of_a_server_that_was_restarted_fail_the_handshake() -> None:
    async with alone_pair() as pair:
        assert (await pair.through(BODY, "before"))[0] == 200
        stale = await pair.prefill(BODY | {"prompt": PROMPT[::-1]}, "x")
        started = pair.engine("prefill-0").started
        await pair.stop("prefill-0")
        await pair.start("prefill-0")
        assert pair.engine("prefill-0").started > started
        assert (await pair.post("decode-0", stale, "x"))[0] == 500
        stats = pair.engine("decode-0").stats
        assert (stats.failed_handshakes, stats.failed_transfers) == (1, 0)
        assert (await pair.through(BODY | {"prompt": PROMPT[::-1]}, "after"))[0] == 200


async def test_a_server_that_is_gone_fails_the_handshake_and_the_pair_recovers() -> None:
    async with alone_pair() as pair:
        handed = await pair.prefill(BODY, "x")
        await pair.stop("prefill-0")
        assert (await pair.post("decode-0", handed, "x"))[0] == 500
        assert (await pair.post("decode-0", BODY, "direct"))[0] == 200
        await pair.start("prefill-0")
        assert (await pair.through(BODY | {"prompt": PROMPT[::-1]}, "after"))[0] == 200
        assert pair.engine("decode-0").pool.usage == 0.0


async def test_a_peer_of_another_version_is_refused() -> None:
    async with alone_pair(decode={"version": "0.31.0"}) as pair:
        assert (await pair.through(BODY, "x"))[0] == 500
        assert pair.engine("decode-0").stats.failed_handshakes == 1


async def test_a_lease_ends_when_decode_never_reads() -> None:
    async with alone_pair(lease_seconds=0.05) as pair:
        await pair.prefill(BODY, "x")
        stats = pair.engine("prefill-0").stats
        await until(lambda: stats.expired_requests == 1, "the lease did not end")
        assert pair.engine("prefill-0").pool.usage == 0.0


@asynccontextmanager
async def silent(pair: AlonePair, *, hangs_up: bool = False) -> AsyncIterator[tuple[dict, asyncio.Event]]:
    """A body whose P shakes hands and answers no read, and an event that is set when a read has come."""
    asked = asyncio.Event()
    config = pair.config

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        layout = [config.block_size, config.num_blocks, config.block_bytes]
        try:
            while True:
                header, _ = await receive(reader)
                if header["kind"] == "hello":
                    writer.write(message({"engine": "silent", "version": config.version, "layout": layout}))
                elif header["kind"] == "read":
                    asked.set()
                    if hangs_up:
                        return
        except EOFError:
            pass
        finally:
            writer.close()

    handed = await pair.prefill(BODY, "x")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    params = handed["kv_transfer_params"] | {"remote_engine_id": "silent"}
    params["remote_port"] = server.sockets[0].getsockname()[1]
    try:
        yield handed | {"kv_transfer_params": params}, asked
    finally:
        server.close()


async def test_a_silent_server_delays_only_its_own_requests() -> None:
    async with alone_pair(pull_seconds=60.0) as pair, silent(pair) as (handed, asked):
        waits = asyncio.create_task(pair.post("decode-0", handed, "x"))
        await asked.wait()
        assert (await pair.through(BODY | {"prompt": PROMPT[::-1]}, "other"))[0] == 200
        assert not waits.done()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)


@pytest.mark.parametrize(("policy", "status"), [("fail", 500), ("recompute", 200)])
@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_read_without_an_answer_is_a_failed_transfer(policy: str, status: int, hangs_up: bool) -> None:
    fields: dict[str, Any] = {"pull_seconds": 60.0 if hangs_up else 0.05, "load_failure_policy": policy}
    async with alone_pair(**fields) as pair, silent(pair, hangs_up=hangs_up) as (handed, _):
        seen, answer = await pair.post("decode-0", handed, "x")
        stats = pair.engine("decode-0").stats
        assert (seen, stats.failed_transfers, stats.failed_handshakes) == (status, 1, 0)
        if status == 200:
            right = await pair.post("prefill-0", BODY, "right")
            assert answer["choices"][0]["text"] == right[1]["choices"][0]["text"]
        await until(lambda: not pair.engine("decode-0").pool.usage, "blocks were not freed")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2\0\0\0\0[]", b"\0\0\0\2\0\0\0\0{}", b"\0\0\0"])
async def test_what_is_no_message_ends_the_connection_and_nothing_else(sent: bytes) -> None:
    async with alone_pair() as pair:
        reader, writer = await asyncio.open_connection("127.0.0.1", pair.ports["prefill-0"][1])
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert (await pair.through(BODY, "x"))[0] == 200


@pytest.mark.parametrize("port", ["5600", {}, -3, 0, 70000])
async def test_a_port_that_is_none_fails_the_handshake(port: object) -> None:
    async with alone_pair() as pair:
        handed = await pair.prefill(BODY, "x")
        handed["kv_transfer_params"]["remote_port"] = port
        assert (await pair.post("decode-0", handed, "x"))[0] == 500


async def test_a_server_that_drains_refuses_new_requests_and_ends_the_others() -> None:
    async with alone_pair(shutdown_timeout=60.0, step_seconds=0.001) as pair:
        going_on = asyncio.create_task(pair.post("decode-0", BODY | {"max_tokens": 400}, "x"))
        site = pair.servers["decode-0"].site
        await until(lambda: site.server.busy, "the request did not arrive")
        draining = asyncio.create_task(site.drain(60.0))
        refused, _ = await pair.post("decode-0", BODY, "late")
        assert (refused, (await going_on)[0]) == (503, 200)
        await draining


async def test_a_server_that_does_not_drain_cuts_its_requests() -> None:
    async with alone_pair(step_seconds=0.001) as pair:
        going_on = asyncio.create_task(pair.post("decode-0", BODY | {"max_tokens": 8000}, "x"))
        site = pair.servers["decode-0"].site
        await until(lambda: site.server.busy, "the request did not arrive")
        await pair.stop("decode-0")
        (result,) = await asyncio.gather(going_on, return_exceptions=True)
        assert isinstance(result, aiohttp.ClientConnectionError)


def test_a_process_shows_when_it_began() -> None:
    """Tests of restarts need it: two clocks that begin with their processes would show nearly the same time."""

    async def started() -> float:
        async with alone_pair() as pair:
            return pair.engine("decode-0").started

    before = time.time()
    assert before <= asyncio.run(started()) <= time.time()


LOAD = {
    f"r{n}": {"prompt": [264 + n, *range(300, 300 + length)], "max_tokens": 3}
    for n, length in enumerate((49, 50, 63, 80, 90, 100))
}


async def _struck(bug: str) -> tuple[set[str], set[str]]:
    """Whom the bug struck, and whose KV was wrong, if D and P have sockets between them; one request after another."""
    async with alone_pair(**_planted(bug)) as pair:
        for name, body in LOAD.items():
            await pair.through(body, name)
        ledger = pair.engine("decode-0").model.ledger
        return ledger.struck[bug], ledger.wrong


def _planted(bug: str) -> dict[str, Any]:
    return {"bugs": (PlantedBug(bug),), "connectors": (Connector.NIXL,), "audit_always": True}


PULLED = [name for name in BUGS if name in PULL_BUGS or name in ("foreign_blocks", "expired_read")]


@pytest.mark.parametrize("bug", [name for name in PULLED if name != "hung_request"])
async def test_planted_bugs_of_pulls_strike_the_same_requests_as_in_shared_memory(bug: str) -> None:
    shared = SimPair(SimConfig(noise=QUIET, eos_rate=0.0, **_planted(bug)), lambda: 0.0)
    for name, body in LOAD.items():
        through_together(shared, {name: body})
        shared.settle()
    assert await _struck(bug) == (shared.ledger.struck[bug], shared.ledger.wrong)
