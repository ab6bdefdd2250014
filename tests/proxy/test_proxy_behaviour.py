"""The proxy between scripted servers and a client, over real sockets."""

import asyncio
import uuid
from typing import Any

import aiohttp
import load_wire as wire
import pytest
from aiohttp import web
from proxy_fakes import (
    CHAT,
    COMPLETIONS,
    DEADLINE_S,
    PARAMS,
    Script,
    answering,
    closed_port,
    closes,
    decoded,
    pair,
    prefilled,
    proxying,
    running,
)

from harness.errors import UsageError
from harness.proxy import start_proxy

EVENTS = [b"data: {1}\n\n", b"data: {2}\n\n", b"data: [DONE]\n\n"]


async def within_deadline(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await event.wait()


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("stream", [False, True, None])
@pytest.mark.parametrize(
    "extra",
    [
        {"temperature": 0, "seed": 3, "logprobs": 1},
        {"min_tokens": 5, "max_tokens": 9, "max_completion_tokens": 9, "n": 2, "best_of": 2},
        {"stream_options": {"include_usage": True}, "prompt_logprobs": 0, "echo": True, "return_token_ids": True},
    ],
    ids=["sampling", "lengths", "extras"],
)
async def test_p_prefills_one_token_and_d_gets_the_request(
    path: str, stream: bool | None, extra: dict[str, Any]
) -> None:
    prompt = {"messages": [{"role": "user", "content": "x"}]} if path == CHAT else {"prompt": "x"}
    body = prompt | extra | ({} if stream is None else {"stream": stream})
    async with pair(d_script=wire.streams(*EVENTS) if stream else decoded) as servers:
        async with servers.post(body, path) as answer:
            received = await answer.read()
        assert answer.status == 200
        assert received == (b"".join(EVENTS) if stream else b'{"choices": [{"text": "done"}]}')
        assert servers.p.seen[0].path == servers.d.seen[0].path == path
        to_p, to_d = servers.p.body, servers.d.body
        assert to_d == body | {"kv_transfer_params": PARAMS}
        assert (to_p["stream"], to_p["max_tokens"], to_p["n"]) == (False, 1, 1)
        assert path == COMPLETIONS or to_p["max_completion_tokens"] == 1
        assert not to_p.keys() & {"min_tokens", "stream_options", "prompt_logprobs", "echo", "best_of"}
        assert to_p["kv_transfer_params"]["do_remote_decode"] is True


async def test_a_stream_comes_byte_for_byte_with_its_content_type() -> None:
    events = [b"data: \xc3\xa9\n\n", b": ping\n\n", b"x" * 300_000, b"\r\n", b"data: [DONE]\n\n"]
    content_type = "text/event-stream; charset=utf-8"
    script = wire.streams(*events, headers={"Content-Type": content_type})
    async with pair(d_script=script) as servers, servers.post({"stream": True}) as answer:
        assert answer.headers["Content-Type"] == content_type
        assert "Content-Encoding" not in answer.headers
        assert await answer.read() == b"".join(events)


async def test_each_event_reaches_the_client_before_d_sends_the_next() -> None:
    arrived = [asyncio.Event() for _ in EVENTS]

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event, seen in zip(EVENTS, arrived, strict=True):
            await response.write(event)
            await within_deadline(seen)
        return response

    async with pair(d_script=script) as servers, servers.post({"stream": True}) as answer:
        for event, seen in zip(EVENTS, arrived, strict=True):
            assert await answer.content.readexactly(len(event)) == event
            seen.set()
        assert await answer.read() == b""


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_error_of_p_reaches_the_client_and_d_is_not_asked(status: int) -> None:
    error = {"error": {"message": "no", "code": status}}
    async with pair(p_script=answering(status, error)) as servers, servers.post({}) as answer:
        assert (answer.status, await answer.json()) == (status, error)
        assert servers.d.seen == []
        assert servers.proxy.status()["prefill"][0]["http_errors"] == 1


@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_of_d_reaches_the_client(status: int) -> None:
    error = {"error": {"message": "no", "code": status}}
    async with pair(d_script=answering(status, error)) as servers, servers.post({"stream": True}) as answer:
        assert (answer.status, await answer.json()) == (status, error)
        assert servers.proxy.status()["decode"][0]["http_errors"] == 1


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ({}, "no kv_transfer_params"),
        ({"kv_transfer_params": None}, "no kv_transfer_params"),
        ({"kv_transfer_params": {}}, "no kv_transfer_params"),
        ({"kv_transfer_params": PARAMS | {"remote_block_ids": []}}, "remote_block_ids"),
        ({"kv_transfer_params": PARAMS | {"remote_block_ids": [[]]}}, "remote_block_ids"),
        ({"kv_transfer_params": PARAMS | {"remote_port": None}}, "remote_port"),
        ({"kv_transfer_params": {k: v for k, v in PARAMS.items() if k != "remote_host"}}, "remote_host"),
    ],
)
async def test_an_incomplete_handover_is_502_and_never_forwarded(answer: Any, names: str) -> None:
    async with pair(p_script=answering(200, answer)) as servers, servers.post({}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (502, 502)
        assert names in error["message"]
        assert servers.p.url in error["message"]
        assert servers.d.seen == []
        assert servers.proxy.status()["prefill"][0]["incomplete_handovers"] == 1


@pytest.mark.parametrize("body", [b"not json", {"prompt": ["a", "b"]}, {"kv_transfer_params": PARAMS}])
async def test_a_rejected_request_is_400_and_no_server_is_asked(body: Any) -> None:
    async with pair() as servers, servers.post(body) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["type"]) == (400, 400, "BadRequestError")
        assert servers.p.seen == servers.d.seen == []
        assert servers.proxy.status()["rejected"] == 1


@pytest.mark.parametrize("script", [wire.cuts(EVENTS[0]), wire.cuts(EVENTS[0], headers={"Content-Length": "100"})])
async def test_a_stream_that_d_cut_is_cut_for_the_client_too(script: Script) -> None:
    async with pair(d_script=script) as servers, servers.post({"stream": True}) as answer:
        assert await answer.content.readexactly(len(EVENTS[0])) == EVENTS[0]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        counts = servers.proxy.status()["decode"][0]
        assert (counts["broken"], counts["completed"]) == (1, 0)


async def test_a_cut_stream_has_no_end_marker_even_in_its_bytes() -> None:
    async with pair(d_script=wire.cuts(EVENTS[0])) as servers:
        received = await raw_exchange(servers.proxy.url, b"HTTP/1.1")
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert body == b"%x\r\n%s\r\n" % (len(EVENTS[0]), EVENTS[0])


async def test_a_client_of_http_1_0_sees_a_cut_as_a_reset() -> None:
    async with pair(d_script=wire.cuts(EVENTS[0])) as servers:
        with pytest.raises(ConnectionResetError):
            await raw_exchange(servers.proxy.url, b"HTTP/1.0")


async def raw_exchange(url: str, version: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"POST /v1/completions %s\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % version)
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    finally:
        writer.close()


async def test_a_server_that_dies_before_it_answers_is_502() -> None:
    async with pair(p_script=closes) as servers, servers.post({}) as answer:
        assert answer.status == 502
        assert f"prefill server {servers.p.url} closed the connection" in (await answer.json())["error"]["message"]
        assert len(servers.p.seen) == 1, "a POST is not sent twice"


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_an_unreachable_server_is_502_with_its_role_and_url(role: str) -> None:
    nowhere = await closed_port()
    async with (
        running(prefilled) as p,
        aiohttp.ClientSession() as client,
        proxying([nowhere if role == "prefill" else p.url], [nowhere]) as proxy,
    ):
        async with client.post(proxy.url + COMPLETIONS, data=b"{}") as answer:
            assert answer.status == 502
            assert f"The {role} server {nowhere} cannot be reached" in (await answer.json())["error"]["message"]
        assert proxy.status()[role][0]["unreachable"] == 1
        assert proxy.status()["stranded_prefills"] == (role == "decode")


async def test_the_clients_request_id_goes_to_both_servers_and_back() -> None:
    async with pair() as servers, servers.post({}, headers={"X-Request-Id": "mine", "Authorization": "k"}) as answer:
        assert answer.headers.getall("X-Request-Id") == ["mine"]
        for server in (servers.p, servers.d):
            assert server.seen[0].headers["X-Request-Id"] == "mine"
            assert server.seen[0].headers["Authorization"] == "k"


async def test_a_request_id_in_the_body_is_used_if_no_header_has_one() -> None:
    async with pair() as servers, servers.post({"request_id": "in body"}) as answer:
        assert answer.headers["X-Request-Id"] == "in body" == servers.d.seen[0].headers["X-Request-Id"]


@pytest.mark.parametrize("body", [{}, {"request_id": "a\r\nb: c"}, {"request_id": 3}, b"not json"])
async def test_a_request_without_a_usable_id_gets_one(body: Any) -> None:
    async with pair() as servers, servers.post(body) as answer:
        given = answer.headers["X-Request-Id"]
        assert str(uuid.UUID(given)) == given
        assert {s.headers["X-Request-Id"] for s in [*servers.p.seen, *servers.d.seen]} <= {given}


async def test_requests_go_round_robin_and_the_answer_names_the_servers() -> None:
    async with (
        running(prefilled) as p0, running(prefilled) as p1, running(decoded) as d0, running(decoded) as d1,
        running(decoded) as d2, aiohttp.ClientSession() as client,
        proxying([p0.url, p1.url], [d0.url, d1.url, d2.url]) as proxy,
    ):  # fmt: skip
        pairs = []
        for _ in range(6):
            async with client.post(proxy.url + COMPLETIONS, data=b"{}") as answer:
                pairs.append((answer.headers["X-PD-Prefill"], answer.headers["X-PD-Decode"]))
        assert sorted(pairs) == sorted((p.url, d.url) for p in (p0, p1) for d in (d0, d1, d2))
        assert [len(server.seen) for server in (p0, p1, d0, d1, d2)] == [3, 3, 2, 2, 2]


async def test_other_paths_are_answered_by_d() -> None:
    async def script(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path_qs, "body": await request.text()})

    async with pair(d_script=script) as servers:
        for method, path, body in [
            ("GET", "/v1/models?x=1", ""),
            ("GET", "/version", ""),
            ("POST", "/tokenize", "{}"),
            ("POST", "/detokenize", "{}"),
        ]:
            async with servers.client.request(method, servers.proxy.url + path, data=body or None) as answer:
                assert await answer.json() == {"path": path, "body": body}
        assert servers.p.seen == []
        assert servers.proxy.status()["other"]["completed"] == 4
        assert servers.proxy.status()["decode"][0]["requests"] == 0


async def test_health_fails_if_any_server_is_unhealthy() -> None:
    async with pair(p_script=answering(200, {}), d_script=answering(503, {})) as servers:
        async with servers.client.get(servers.proxy.url + "/health") as answer:
            assert answer.status == 503
            assert servers.d.url in await answer.text()
        servers.d.script = answering(200, {})
        async with servers.client.get(servers.proxy.url + "/health") as answer:
            assert answer.status == 200


async def test_an_unknown_path_is_404_in_the_openai_format() -> None:
    async with pair() as servers, servers.client.get(servers.proxy.url + "/unknown") as answer:
        assert answer.status == 404
        assert "GET /health" in (await answer.json())["error"]["message"]


async def test_the_status_counts_requests_and_answers() -> None:
    async with pair() as servers:
        for _ in range(3):
            async with servers.post({}) as answer:
                await answer.read()
        async with servers.client.get(servers.proxy.url + "/proxy/status") as answer:
            status = await answer.json()
        assert status == servers.proxy.status()
        assert (status["requests"], status["in_flight"]) == (3, 0)
        assert [status[role][0]["completed"] for role in ("prefill", "decode")] == [3, 3]


async def test_connections_to_the_servers_are_kept() -> None:
    async with pair() as servers:
        for _ in range(5):
            async with servers.post({}) as answer:
                await answer.read()
        assert len(servers.p.connections) == len(servers.d.connections) == 1


async def test_a_prompt_of_many_megabytes_is_served() -> None:
    prompt = "x" * 8_000_000
    async with pair() as servers, servers.post({"prompt": prompt}) as answer:
        assert answer.status == 200
        assert servers.p.body["prompt"] == servers.d.body["prompt"] == prompt


async def test_stop_closes_everything_at_once_if_nothing_is_in_flight() -> None:
    async with running(prefilled) as p, running(decoded) as d, aiohttp.ClientSession() as client:
        proxy = await start_proxy([p.url], [d.url])
        async with client.post(proxy.url + COMPLETIONS, data=b"{}") as answer:
            await answer.read()
        async with asyncio.timeout(2.0):
            await proxy.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.post(proxy.url + COMPLETIONS, data=b"{}")


async def test_a_port_in_use_is_a_usage_error() -> None:
    async with running(decoded) as taken:
        port = int(taken.url.rsplit(":", 1)[1])
        with pytest.raises(UsageError, match=f"Port {port} on 127.0.0.1 is in use"):
            await start_proxy(["http://p"], ["http://d"], port=port)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "/v1", "http://h:x", "http://[::1"])
async def test_an_invalid_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a decode server"):
        await start_proxy(["http://p"], [url])


@pytest.mark.parametrize(("prefill", "decode"), [([], ["http://d"]), (["http://p"], [])])
async def test_a_role_without_a_server_is_a_usage_error(prefill: list[str], decode: list[str]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        await start_proxy(prefill, decode)
