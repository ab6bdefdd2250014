"""Warming a deployment up: when to go on trying, and when to believe that it never will."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from handover import HANDED, PATIENT
from jumping_clock import JumpingClock

from harness.deploy.warmup import REFUSALS_LAST, WarmUp, warm_up_transfers
from harness.errors import DeployError


@asynccontextmanager
async def server(*answers: tuple[int, dict[str, object]]) -> AsyncIterator[str]:
    """Gives its answers in turn, the last one again and again."""
    left = list(answers)

    async def answer(_: web.Request) -> web.Response:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, text=json.dumps(body), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


async def warmed(clock: JumpingClock, *decode: tuple[int, dict[str, object]]) -> None:
    how = WarmUp("canary", {}, clock, timeout=PATIENT)
    async with server((200, {"kv_transfer_params": HANDED})) as p, server(*decode) as d:
        await warm_up_transfers([p], [d], how)


async def test_a_handshake_that_times_out_at_first_is_tried_again() -> None:
    refused = (500, {"error": "handshake"})
    await warmed(JumpingClock(), *[refused] * 20, (200, {}))


async def test_a_decode_server_that_refuses_every_time_is_believed_long_before_the_deadline() -> None:
    clock = JumpingClock()
    with pytest.raises(DeployError) as failed:
        await warmed(clock, (500, {"error": "hash mismatch"}))
    assert "answered 500" in str(failed.value)
    assert "hash mismatch" in str(failed.value)
    assert REFUSALS_LAST < clock.time < PATIENT / 2
