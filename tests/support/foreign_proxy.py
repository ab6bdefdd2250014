"""A proxy that is not the harness's own: like most proxies, it sends the client's request to prefill for one token.

The request to prefill keeps fields that the harness's proxy leaves out (``prompt_logprobs``, ``echo``, ``n``). The
proxy answers 500 to any error of prefill, takes servers in turn, and has no status page.
"""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

_NOBODY = ("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")
_ONLY_FOR_DECODE = ("stream_options", "min_tokens")


@asynccontextmanager
async def foreign_proxy(prefill: Sequence[str], decode: Sequence[str]) -> AsyncIterator[str]:
    """The URL of a running proxy between these servers."""
    in_turn = itertools.cycle(prefill), itertools.cycle(decode)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        asked = {key: value for key, value in body.items() if key not in _ONLY_FOR_DECODE}
        handover = {"do_remote_decode": True, "do_remote_prefill": False, **dict.fromkeys(_NOBODY)}
        asked |= {"stream": False, "max_tokens": 1, "kv_transfer_params": handover}
        if "max_completion_tokens" in asked:
            asked["max_completion_tokens"] = 1
        async with http.post(next(in_turn[0]) + request.path, json=asked) as first:
            if first.status != 200:
                return web.json_response({"detail": "Internal Server Error"}, status=500)
            body["kv_transfer_params"] = (await first.json())["kv_transfer_params"]
        async with http.post(next(in_turn[1]) + request.path, json=body) as second:
            answer = web.StreamResponse(status=second.status, headers={"Content-Type": second.headers["Content-Type"]})
            await answer.prepare(request)
            async for part in second.content.iter_any():
                await answer.write(part)
            await answer.write_eof()
            return answer

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/completions", handle)
    app.router.add_post("/v1/chat/completions", handle)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http, TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")
