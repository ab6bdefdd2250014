"""The proxy tells how long it and the prefill server took with a request."""

import re
from time import perf_counter

import load_wire as wire
import pytest
from aiohttp import web
from proxy_fakes import PARAMS, Script, answering, pair

NAME = "X-PD-Timing"


def of(value: str) -> tuple[float, float]:
    """Milliseconds of the proxy and of the prefill server."""
    found = re.fullmatch(r"proxy=(\d+\.\d{3}), prefill=(\d+\.\d{3})", value)
    assert found is not None, value
    return float(found[1]), float(found[2])


def noting(script: Script, held: list[float]) -> Script:
    """The script; adds when it was asked and when it had its answer, in seconds."""

    async def answer(request: web.Request) -> web.StreamResponse:
        held.append(perf_counter())
        try:
            return await script(request)
        finally:
            held.append(perf_counter())

    return answer


@pytest.mark.parametrize("stream", [False, True])
async def test_times_are_within_those_that_client_and_server_see(stream: bool) -> None:
    held: list[float] = []
    prefilling = noting(answering(200, {"choices": [], "kv_transfer_params": PARAMS}), held)
    decoding = wire.streams(b"data: [DONE]\n\n") if stream else answering(200, {"choices": []})
    async with pair(prefilling, decoding) as servers:
        sent = perf_counter()
        async with servers.post({"stream": stream}) as answer:
            (value,) = answer.headers.getall(NAME)
            whole = perf_counter() - sent
    proxy, prefill = of(value)
    assert (held[1] - held[0]) * 1000 <= prefill + 0.001
    assert proxy + prefill <= whole * 1000 + 0.002


@pytest.mark.parametrize("name", [NAME, NAME.lower()])
async def test_a_header_of_this_name_comes_from_the_proxy_alone(name: str) -> None:
    decoding = wire.streams(b"data: [DONE]\n\n", headers={name: "of D"})
    prefilling = answering(200, {"choices": [], "kv_transfer_params": PARAMS})
    async with pair(prefilling, decoding) as servers, servers.post({}) as answer:
        (value,) = answer.headers.getall(NAME)
        assert of(value)


async def test_a_refusal_by_the_prefill_server_has_none() -> None:
    async with pair(wire.answers(400, {}, headers={NAME: "of P"})) as servers, servers.post({}) as answer:
        assert answer.status == 400
        assert NAME not in answer.headers
