"""The proxy can be told to use other addresses, in its own connections and in what it hands from P to D."""

import json
from collections.abc import Mapping

import aiohttp
import pytest
from aiohttp import web
from proxy_fakes import COMPLETIONS, PARAMS, running

from harness.errors import UsageError
from harness.proxy import start_proxy
from harness.proxy.detours import Address, detoured, read_detours

SIDE_CHANNEL = Address("127.0.0.1", 5600)
"""Where P's answers say that its side channel is."""


async def _prefills(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"choices": [{"finish_reason": "length"}], "kv_transfer_params": PARAMS})


async def _decodes(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"choices": [{"text": "a"}]})


async def _asked(url: str) -> Mapping[str, str]:
    """The headers of the answer to a request through the proxy."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + COMPLETIONS, json={"prompt": "a"}) as answer,
    ):
        assert answer.status == 200
        return answer.headers


async def test_a_server_is_reached_by_a_detour_and_keeps_its_name() -> None:
    async with running(_prefills) as p, running(_decodes) as d:
        meant = Address("127.0.0.1", 9)
        used = Address("127.0.0.1", int(d.url.rpartition(":")[2]))
        handle = await start_proxy([p.url], ["http://127.0.0.1:9"], detours={meant: used})
        assert (await _asked(handle.url))["X-PD-Decode"] == "http://127.0.0.1:9"
        await handle.stop()
        assert d.seen[0].headers["Host"] == "127.0.0.1:9"


@pytest.mark.parametrize(("detours", "port"), [({SIDE_CHANNEL: Address("127.0.0.1", 7)}, 7), ({}, 5600)])
async def test_decode_is_sent_to_the_detour_of_the_side_channel(detours: dict[Address, Address], port: int) -> None:
    async with running(_prefills) as p, running(_decodes) as d:
        handle = await start_proxy([p.url], [d.url], detours=detours)
        await _asked(handle.url)
        await handle.stop()
        handed = json.loads(d.bodies[0])["kv_transfer_params"]
    assert handed == {**PARAMS, "remote_port": port}


def test_other_side_channels_stay_as_they_are() -> None:
    params = {**PARAMS, "remote_port": 5601}
    assert detoured(params, {SIDE_CHANNEL: Address("127.0.0.1", 7)}) == params


def test_detours_are_read() -> None:
    assert read_detours(["a:1=b:2", "::1:3=127.0.0.1:4"]) == {
        Address("a", 1): Address("b", 2),
        Address("::1", 3): Address("127.0.0.1", 4),
    }


@pytest.mark.parametrize("text", ["a:1", "a:1=b", "a=b:1", "a:0=b:1", "a:1=b:65536", ":1=b:1", "a:x=b:1"])
def test_what_is_no_detour_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="two addresses"):
        read_detours([text])
