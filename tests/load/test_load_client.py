"""The client against scripted servers: every row of the table of outcomes, and the fields of an operation's end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any

import load_wire as wire
import pytest
from aiohttp import web
from load_wire import REQUEST, ask
from polling import until
from proxy_fakes import closes
from turns import turn

from harness.clock import MonotonicClock
from harness.history import Outcome, TokenLogprob, Usage
from harness.load.client import Client
from harness.scenario import Endpoint, Message, Request, Route, Sampling

OK, FAIL, INFO = Outcome.OK, Outcome.FAIL, Outcome.INFO
TOKEN = wire.completion_chunk([11], text="a", prompt_token_ids=[1, 2, 3])
LAST = wire.completion_chunk([12], text="b", finish="length")
NAMED = {"X-PD-Prefill": "http://p:1", "X-PD-Decode": "http://d:2"}


class Ticks:
    """A clock that advances by one second whenever it is read."""

    def __init__(self) -> None:
        self._ticks = count()

    def now(self) -> float:
        return float(next(self._ticks))

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - as in a clock; here no time is waited for
        await turn()


async def test_a_whole_stream_is_ok_and_recorded() -> None:
    ended = await ask(wire.streams(wire.whole_stream(), headers=NAMED))
    assert (ended.outcome, ended.cause, ended.status, ended.request_id) == (OK, "", 200, "r-1")
    (choice,) = ended.choices
    assert (choice.token_ids, choice.text, choice.finish_reason) == ((11, 12, 13), "abc", "length")
    assert choice.logprobs == (
        TokenLogprob(11, -0.5, -1.25, 40),
        TokenLogprob(12, -0.25, -2.5, 41),
        TokenLogprob(13, -0.125, -3.0, 42),
    )
    assert (ended.usage, ended.prompt_token_ids, ended.prompt_logprobs) == (Usage(3, 3), (1, 2, 3), None)
    assert (ended.prefill_server, ended.decode_server) == ("http://p:1", "http://d:2")


async def test_each_arrival_has_its_own_time() -> None:
    """The server writes the next chunk only after the client has read its clock for the previous one."""
    clock = Ticks()
    seen = asyncio.Event()

    class Watched(Ticks):
        def now(self) -> float:
            seen.set()
            return clock.now()

    async def script(request: web.Request) -> web.StreamResponse:
        response = await wire.streams()(request)
        for piece in (wire.sse(TOKEN), wire.sse(LAST), wire.sse(wire.usage(3, 2)) + wire.DONE):
            seen.clear()
            await response.write(piece)
            await seen.wait()
        return response

    ended = await ask(script, clock=Watched())
    assert (ended.token_times, ended.tokens_per_chunk, ended.at) == ((0.0, 1.0), (1, 1), 2.0)


async def test_headers_and_body_are_sent() -> None:
    seen: list[tuple[str, Any, Any]] = []

    async def script(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.headers.copy(), await request.json()))
        return await wire.streams(wire.whole_stream())(request)

    await ask(script, headers={"Authorization": "Bearer x"}, extra_body={"top_k": 5, "repetition_penalty": 1.3})
    ((path, headers, body),) = seen
    assert path == "/v1/completions"
    assert headers["X-Request-Id"] == "r-1"
    assert headers["Authorization"] == "Bearer x"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Content-Type"] == "application/json"
    assert (body["model"], body["prompt"]) == ("m", [1, 2, 3])
    assert (body["top_k"], body["repetition_penalty"], body["top_p"]) == (5, 1.3, 1.0)


async def test_chat_goes_to_its_own_endpoint() -> None:
    chunks = [wire.chat_role_chunk([1, 2]), wire.chat_chunk([11], text="a", finish="stop"), wire.usage(2, 1)]
    request = replace(REQUEST, prompt=(Message("user", "hi"),), endpoint=Endpoint.CHAT)
    paths: list[str] = []

    async def script(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return await wire.streams(wire.sse(*chunks) + wire.DONE)(request)

    ended = await ask(script, request)
    assert paths == ["/v1/chat/completions"]
    assert (ended.outcome, ended.choices[0].token_ids, ended.prompt_token_ids) == (OK, (11,), (1, 2))


def plain(**fields: Any) -> wire.Json:
    choice = {"index": 0, "text": "a", "logprobs": None, "finish_reason": "length", "token_ids": [11], **fields}
    return wire.completion_body([choice], {"usage": {"prompt_tokens": 3, "completion_tokens": 1}})


@pytest.mark.parametrize(
    ("body", "outcome", "cause"),
    [
        (plain(), OK, ""),
        (plain(finish_reason=None), INFO, "no finish_reason"),
        (plain(token_ids=None), OK, ""),
        (plain(token_ids=None, text="") | {"usage": None}, INFO, "no token ids, no text and no usage"),
        (wire.ERROR, INFO, "error inside a 200"),
        ("not json", INFO, "unreadable"),
        ("", INFO, "unreadable"),
    ],
)
async def test_answers_that_are_not_streamed(body: wire.Json | str, outcome: Outcome, cause: str) -> None:
    ended = await ask(wire.answers(200, body), replace(REQUEST, stream=False))
    assert ended.outcome is outcome
    assert cause in ended.cause
    assert ended.token_times == ()


DIRECT, PROXY = Route.DECODE, Route.PROXY
P_ONLY = {"X-PD-Prefill": "http://p:1"}


@pytest.mark.parametrize(
    ("status", "route", "headers", "outcome"),
    [
        (400, DIRECT, {}, FAIL),
        (404, Route.PREFILL, {}, FAIL),
        (422, DIRECT, {}, FAIL),
        (429, DIRECT, {}, FAIL),
        (408, DIRECT, {}, INFO),
        (400, PROXY, P_ONLY, FAIL),
        (400, PROXY, NAMED, INFO),
        (400, PROXY, {}, INFO),
        (500, DIRECT, {}, INFO),
        (502, PROXY, P_ONLY, INFO),
        (503, DIRECT, {}, INFO),
        (204, DIRECT, {}, INFO),
        (307, DIRECT, {"Location": "/elsewhere"}, INFO),
    ],
)
async def test_other_statuses(status: int, route: Route, headers: dict[str, str], outcome: Outcome) -> None:
    ended = await ask(wire.answers(status, "it says why", headers), replace(REQUEST, route=route))
    assert (ended.outcome, ended.status) == (outcome, status)
    assert f"HTTP {status}: {'' if status == 204 else 'it says why'}" == ended.cause
    assert ended.choices == ()


@pytest.mark.parametrize(
    ("stream", "cause"),
    [
        (wire.sse(TOKEN, wire.ERROR) + wire.DONE, "error inside a 200: {'message': 'Internal server error'"),
        (wire.sse(wire.ERROR) + wire.DONE, "error inside a 200"),
        (wire.sse(TOKEN, LAST), "without its end marker"),
        (wire.sse(TOKEN, LAST, wire.usage(3, 3)), "without its end marker"),
        (b"", "without its end marker"),
        (b'{"choices": []}', "without its end marker"),
        (wire.sse(TOKEN) + wire.DONE, "no finish_reason"),
        (wire.sse(TOKEN, wire.completion_chunk([12], finish="abort")) + wire.DONE, "finish_reason abort"),
        (wire.sse(TOKEN, wire.completion_chunk([12], finish="error")) + wire.DONE, "finish_reason error"),
        (wire.sse(TOKEN) + b"data: {oops\n\n" + wire.sse(LAST) + wire.DONE, "unreadable chunk"),
        (wire.sse(wire.completion_chunk([], finish="stop")) + wire.DONE, "no token ids, no text and no usage"),
        (wire.sse(wire.usage(3, 0)) + wire.DONE, "0 of 1 choices"),
        (wire.DONE, "0 of 1 choices"),
        (wire.sse(TOKEN, LAST, wire.usage(3, 3)) + wire.DONE, "2 tokens arrived, but the server's usage counts 3"),
    ],
)
async def test_a_200_that_is_not_whole_is_info(stream: bytes, cause: str) -> None:
    ended = await ask(wire.streams(stream))
    assert (ended.outcome, ended.status) == (INFO, 200)
    assert cause in ended.cause


async def test_tokens_before_an_error_are_recorded() -> None:
    ended = await ask(wire.streams(wire.sse(TOKEN, wire.ERROR) + wire.DONE))
    assert ended.choices[0].token_ids == (11,)
    assert len(ended.token_times) == 1


async def test_a_missing_choice_is_info() -> None:
    request = replace(REQUEST, sampling=Sampling(2, n=2))
    both = [
        wire.completion_chunk([11], index=0, finish="length"),
        wire.completion_chunk([21], index=1, finish="length"),
    ]
    whole = await ask(wire.streams(wire.sse(*both) + wire.DONE), request)
    assert (whole.outcome, [choice.token_ids for choice in whole.choices]) == (OK, [(11,), (21,)])
    half = await ask(wire.streams(wire.sse(both[1]) + wire.DONE), request)
    assert (half.outcome, half.cause) == (INFO, "1 of 2 choices arrived")


async def test_a_cut_stream_is_info() -> None:
    ended = await ask(wire.cuts(wire.sse(TOKEN)))
    assert (ended.outcome, ended.status) == (INFO, 200)
    assert ended.cause.startswith("cut: ")


async def test_a_connection_cut_before_any_answer_is_info() -> None:
    ended = await ask(closes)
    assert (ended.outcome, ended.status) == (INFO, None)
    assert ended.cause.startswith("cut: ")


@pytest.mark.parametrize("begun", [b"", wire.sse(TOKEN)])
async def test_a_timeout_is_info(begun: bytes) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await wire.streams(begun)(request)
        await asyncio.Event().wait()
        return response

    ended = await ask(script, timeout=0.05)
    assert (ended.outcome, ended.cause) == (INFO, "no end of the answer within 0.05 s")


async def test_an_answer_with_its_end_marker_is_whole_even_if_the_connection_stays_open() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await wire.streams(wire.whole_stream())(request)
        await asyncio.Event().wait()
        return response

    ended = await ask(script, timeout=0.2)
    assert ended.outcome is OK


async def refusing() -> AsyncIterator[str]:
    """The URL of a port that is bound but not listened on, so that connecting is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def test_a_refused_connection_is_fail() -> None:
    async for url in refusing():
        async with Client({Route.PROXY: [url]}, model="m", clock=MonotonicClock(), timeout=20) as client:
            ended = await client.send(REQUEST)
    assert (ended.outcome, ended.status) == (FAIL, None)
    assert "not sent" in ended.cause


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (replace(REQUEST, route=Route.DECODE), "--decode-url"),
        (replace(REQUEST, server=1), "server 1"),
        (replace(REQUEST, server=-1), "server -1"),
        (replace(REQUEST, endpoint=Endpoint.CHAT), "messages"),
    ],
)
async def test_a_request_that_cannot_be_sent_is_fail(request_: Request, cause: str) -> None:
    async with Client({Route.PROXY: ["http://x"]}, model="m", clock=MonotonicClock(), timeout=20) as client:
        ended = await client.send(request_)
    assert ended.outcome is FAIL
    assert cause in ended.cause


async def test_servers_are_taken_in_turn_or_by_number() -> None:
    asked: list[str] = []

    def named(name: str) -> wire.Script:
        async def script(request: web.Request) -> web.StreamResponse:
            asked.append(name)
            return await wire.streams(wire.whole_stream())(request)

        return script

    async with wire.serving(named("a")) as a, wire.serving(named("b")) as b:
        routes = {Route.PREFILL: [a, b], Route.PROXY: [b]}
        async with Client(routes, model="m", clock=MonotonicClock(), timeout=20) as client:
            for server in (None, None, None, 1, 1, None):
                await client.send(replace(REQUEST, route=Route.PREFILL, server=server))
            await client.send(REQUEST)
    assert asked == ["a", "b", "a", "b", "b", "b", "b"]


async def test_connections_are_reused() -> None:
    """Twenty requests at a time need twenty connections; the next twenty need no more."""
    peers: set[Any] = set()
    waiting = 0
    all_here = asyncio.Event()

    async def script(request: web.Request) -> web.StreamResponse:
        nonlocal waiting
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        waiting += 1
        if waiting % 20 == 0:
            all_here.set()
        await all_here.wait()
        return await wire.streams(wire.whole_stream())(request)

    clock = MonotonicClock()
    async with wire.serving(script) as url, Client({Route.PROXY: [url]}, model="m", clock=clock, timeout=20) as client:
        for _ in range(2):
            all_here.clear()
            ends = await asyncio.gather(*(client.send(REQUEST) for _ in range(20)))
            assert {ended.outcome for ended in ends} == {OK}
    assert len(peers) == 20


async def test_cancelling_closes_the_connection() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(request: web.Request) -> web.StreamResponse:
        response = await wire.streams(wire.sse(TOKEN))(request)
        arrived.set()
        await until(lambda: request.transport is None or request.transport.is_closing())
        gone.set()
        return response

    clock = MonotonicClock()
    async with wire.serving(script) as url, Client({Route.PROXY: [url]}, model="m", clock=clock, timeout=20) as client:
        sending = asyncio.create_task(client.send(REQUEST))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(gone.wait(), 20)
