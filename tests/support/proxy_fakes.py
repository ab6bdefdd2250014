"""Scripted P and D, and the proxy between them and a client."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from harness.proxy import ProxyHandle, start_proxy

DEADLINE_S = 10.0
"""A test fails if an expected event takes longer."""

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

PARAMS = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[7, 9, 11]],
    "remote_engine_id": "engine-of-p",
    "remote_request_id": "cmpl-1-0",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
    "remote_blocks_expiry_time": None,
}

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fake:
    """One server: runs its script for each request, and keeps the requests."""

    script: Script
    url: str = ""
    seen: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)

    @property
    def body(self) -> Any:
        """The only body, parsed."""
        (raw,) = self.bodies
        return json.loads(raw)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.read())
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        return await self.script(request)


@asynccontextmanager
async def running(script: Script) -> AsyncIterator[Fake]:
    fake = Fake(script)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = "http://{}:{}".format(*runner.addresses[0])
    try:
        yield fake
    finally:
        await runner.cleanup()


@dataclass
class Pair:
    """One P, one D, a proxy and a client."""

    p: Fake
    d: Fake
    proxy: ProxyHandle
    client: aiohttp.ClientSession

    def post(self, body: Any, path: str = COMPLETIONS, **kwargs: Any) -> Any:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        return self.client.post(self.proxy.url + path, data=data, **kwargs)


@asynccontextmanager
async def proxying(prefill: Sequence[str], decode: Sequence[str]) -> AsyncIterator[ProxyHandle]:
    """A proxy before servers at these URLs."""
    proxy = await start_proxy(prefill, decode)
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def pair(p_script: Script | None = None, d_script: Script | None = None) -> AsyncIterator[Pair]:
    async with (
        running(p_script or prefilled) as p,
        running(d_script or decoded) as d,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as client,
        proxying([p.url], [d.url]) as proxy,
    ):
        yield Pair(p, d, proxy, client)


async def prefilled(_request: web.Request) -> web.Response:
    """P's answer with a complete handover."""
    return web.json_response({"choices": [{"finish_reason": "length"}], "kv_transfer_params": PARAMS})


async def closes(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def decoded(_request: web.Request) -> web.Response:
    return web.json_response({"choices": [{"text": "done"}]})


def answering(status: int, body: Any) -> Script:
    async def script(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return script


async def closed_port() -> str:
    """A URL on whose port no server listens."""
    async with running(decoded) as fake:
        return fake.url
