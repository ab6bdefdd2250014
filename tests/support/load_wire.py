"""The messages that vLLM 0.32 writes, servers that send them, and a client that asks such a server.

Written from vLLM's protocol classes and stream generators (openai/completion, openai/chat_completion); stream chunks
leave unset fields out. ``test_load_wire.py`` compares these messages with vLLM's classes.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from harness.clock import MonotonicClock
from harness.history import Ended
from harness.load.client import Client
from harness.scenario import Endpoint, Message, Request, Route, Sampling

Json = dict[str, Any]
Script = Callable[[web.Request], Awaitable[web.StreamResponse]]

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
REQUEST = Request("r-1", (1, 2, 3), Sampling(3, logprobs=2))
"""The request that ``whole_stream`` answers."""
CHAT_REQUEST = Request("r-1", (Message("user", "x"),), Sampling(3, logprobs=2), endpoint=Endpoint.CHAT)
"""The request that ``whole_chat`` answers."""
ERROR: Json = {"error": {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}}


def sse(*messages: Json) -> bytes:
    return b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages)


def completion_logprobs(*rows: tuple[int, float | None, dict[int, float] | None]) -> Json:
    """Rows of (token, its logprob, {token: logprob} including the sampled token)."""
    return {
        "text_offset": [0] * len(rows),
        "token_logprobs": [logprob for _, logprob, _ in rows],
        "tokens": [f"token_id:{token}" for token, _, _ in rows],
        "top_logprobs": [top and {f"token_id:{key}": value for key, value in top.items()} for _, _, top in rows],
    }


def chat_logprobs(*rows: tuple[int, float | None, dict[int, float]]) -> Json:
    return {"content": [_chat_row(*row) for row in rows]}


def _chat_row(token: int, logprob: float | None, top: dict[int, float]) -> Json:
    name = f"token_id:{token}"
    tops = [{"token": f"token_id:{key}", "logprob": value, "bytes": [116]} for key, value in top.items()]
    own = {} if logprob is None else {"logprob": logprob, "top_logprobs": tops}
    return {"token": name, "bytes": [116], **own}


def completion_chunk(
    token_ids: list[int], *, text: str = "", index: int = 0, finish: str | None = None, **fields: Any
) -> Json:
    choice = {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": None,
        "prompt_token_ids": None,
        "token_ids": token_ids,
        **fields,
    }
    return completion_body([choice], {})


def chat_role_chunk(prompt_token_ids: list[int], index: int = 0) -> Json:
    choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    return {**_chat_chunk(choice), "prompt_token_ids": prompt_token_ids}


def chat_chunk(token_ids: list[int], *, text: str = "", index: int = 0, finish: str | None = None, **f: Any) -> Json:
    choice = {
        "index": index,
        "delta": {"content": text},
        "logprobs": None,
        "finish_reason": finish,
        "token_ids": token_ids,
        **f,
    }
    return _chat_chunk(choice)


def _chat_chunk(choice: Json) -> Json:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage(prompt: int, completion: int) -> Json:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return completion_body([], {"usage": counts})


def completion_body(choices: list[Json], counts: Json) -> Json:
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices, **counts}


def whole_stream() -> bytes:
    """The answer to ``REQUEST``: three tokens for a prompt of three tokens."""
    return (
        sse(
            completion_chunk(
                [11],
                text="a",
                prompt_token_ids=[1, 2, 3],
                logprobs=completion_logprobs((11, -0.5, {11: -0.5, 40: -1.25})),
            ),
            completion_chunk([12], text="b", logprobs=completion_logprobs((12, -0.25, {12: -0.25, 41: -2.5}))),
            completion_chunk(
                [13], text="c", finish="length", logprobs=completion_logprobs((13, -0.125, {13: -0.125, 42: -3.0}))
            ),
            usage(3, 3),
        )
        + DONE
    )


def whole_chat() -> bytes:
    """The answer to ``CHAT_REQUEST``: the same tokens."""
    return (
        sse(
            {**chat_role_chunk([1, 2, 3]), "prompt_text": None},
            chat_chunk([11], text="a", logprobs=chat_logprobs((11, -0.5, {11: -0.5, 40: -1.25}))),
            chat_chunk([12], text="b", logprobs=chat_logprobs((12, -0.25, {12: -0.25, 41: -2.5}))),
            chat_chunk(
                [13],
                text="c",
                finish="length",
                stop_reason=None,
                logprobs=chat_logprobs((13, -0.125, {13: -0.125, 42: -3.0})),
            ),
            usage(3, 3),
        )
        + DONE
    )


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """The base URL of a server that runs the script for every POST."""
    app = web.Application()
    app.router.add_post("/{path:.*}", script)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


async def ask(script: Script, request: Request = REQUEST, **settings: Any) -> Ended:
    """Send the request to a server that runs the script; ``settings`` are the client's."""
    settings = {"clock": MonotonicClock(), "timeout": 20.0, **settings}
    async with serving(script) as url, Client({route: [url] for route in Route}, model="m", **settings) as client:
        return await client.send(request)


def streams(*pieces: bytes, headers: dict[str, str] | None = None) -> Script:
    """Answer 200 with these pieces, each in its own write."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    return script


def cuts(*pieces: bytes, headers: dict[str, str] | None = None) -> Script:
    """Answer 200 with these pieces, and then close the connection before the end of the body."""
    begin = streams(*pieces, headers=headers)

    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        assert request.transport is not None
        request.transport.close()
        return response

    return script


def answers(status: int, body: Json | str, headers: dict[str, str] | None = None) -> Script:
    """Answer with a whole body."""

    async def script(_request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    return script
