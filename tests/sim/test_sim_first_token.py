"""What the simulated P says about the first output token, over HTTP and in one process."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from proxy_fakes import proxying

from harness.clock import MonotonicClock
from harness.history import Ended, Named, Outcome
from harness.load.body import encode
from harness.load.client import Client
from harness.scenario import Endpoint, Message, Request, Route, Sampling
from harness.selftest.transport import SimTransport
from harness.selftest.world import World
from harness.sim import QUIET, Noise, PlantedBug, SimConfig, SimPair, start_sim

Send = Callable[[Request], Awaitable[Ended]]

IDS = tuple(range(300, 350))
REQUEST = Request("r-1", IDS, Sampling(4, logprobs=5, ignore_eos=True), Route.PROXY)
CHAT = replace(REQUEST, prompt=(Message("user", "Tell me more."),), endpoint=Endpoint.CHAT)
NOISY = Noise(flip_rate=0.0, sigma=0.05)


@asynccontextmanager
async def over_http(config: SimConfig) -> AsyncIterator[Send]:
    sim = await start_sim(config)
    try:
        async with proxying(sim.prefill_urls, sim.decode_urls) as proxy:
            routes = {Route.PROXY: [proxy.url], Route.PREFILL: sim.prefill_urls, Route.DECODE: sim.decode_urls}
            async with Client(routes, model="sim", clock=MonotonicClock(), timeout=20.0) as client:
                yield client.send
    finally:
        await sim.stop()


@asynccontextmanager
async def in_process(config: SimConfig) -> AsyncIterator[Send]:
    world = World()
    world.pair = SimPair(config, world.now)
    async with world:
        yield SimTransport(world.pair, world, {server.name: server.name for server in world.pair.servers}).send


both_roads = pytest.mark.parametrize("road", [over_http, in_process])


async def once(road: Any, config: SimConfig, request: Request) -> Ended:
    async with road(config) as send:
        ended: Ended = await send(request)
    assert ended.outcome is Outcome.OK, ended.cause
    return ended


def said_by_p(config: SimConfig, request: Request) -> Named:
    """What P answers, asked by itself for one token, from the fields of its answer."""
    body = json.loads(encode(request, model="sim")) | {"stream": False, "n": 1, "max_tokens": 1}
    body |= {"max_completion_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}}
    body = {key: value for key, value in body.items() if key not in ("stream_options", "echo")}
    _, answer = SimPair(config, lambda: 0.0).prefill.handle(request.endpoint, body, request.request_id)
    logprobs = answer["choices"][0]["logprobs"]
    if request.endpoint is Endpoint.CHAT:
        tops = logprobs["content"][0]["top_logprobs"]
        return tuple((int(top["token"].removeprefix("token_id:")), top["logprob"]) for top in tops)
    return tuple((int(key.removeprefix("token_id:")), value) for key, value in logprobs["top_logprobs"][0].items())


FORMS = [
    REQUEST,
    replace(REQUEST, stream=False),
    CHAT,
    replace(CHAT, stream=False),
    replace(REQUEST, sampling=replace(REQUEST.sampling, n=2)),
    replace(REQUEST, sampling=replace(REQUEST.sampling, echo=True)),
    replace(REQUEST, prompt=IDS[:1]),
]


@both_roads
@pytest.mark.parametrize("request_", FORMS, ids=["stream", "whole", "chat", "whole-chat", "n", "echo", "one-token"])
async def test_without_noise_both_servers_say_the_same_to_the_last_bit(road: Any, request_: Request) -> None:
    config = SimConfig(noise=QUIET, eos_rate=0.0)
    ended = await once(road, config, request_)
    assert len(ended.prefill_first) == 5
    assert ended.prefill_first == said_by_p(config, request_)
    assert ended.first_logprobs == ended.prefill_first
    assert ended.first_logprobs[0][0] == ended.choices[0].token_ids[0]


@both_roads
@pytest.mark.parametrize("request_", [REQUEST, CHAT], ids=["completions", "chat"])
async def test_with_noise_each_server_has_its_own(road: Any, request_: Request) -> None:
    config = SimConfig(noise=NOISY, eos_rate=0.0)
    ended = await once(road, config, request_)
    assert ended.prefill_first == said_by_p(config, request_)
    assert dict(ended.prefill_first).keys() == dict(ended.first_logprobs).keys()
    assert set(ended.prefill_first).isdisjoint(ended.first_logprobs)


@both_roads
@pytest.mark.parametrize("bug", ["zeroed_last_block", "zeroed_layer", "scaled_kv"])
async def test_wrong_kv_on_d_does_not_change_what_p_said(road: Any, bug: str) -> None:
    config = SimConfig(noise=QUIET, eos_rate=0.0)
    damaged = replace(config, bugs=(PlantedBug(bug),))
    ended = await once(road, damaged, REQUEST)
    assert ended.prefill_first == said_by_p(config, REQUEST) != ended.first_logprobs


@both_roads
@pytest.mark.parametrize("route", [Route.PREFILL, Route.DECODE])
async def test_a_request_to_one_server_has_no_word_of_p(road: Any, route: Route) -> None:
    ended = await once(road, SimConfig(noise=QUIET, eos_rate=0.0), replace(REQUEST, route=route))
    assert ended.prefill_first == ()
    assert len(ended.first_logprobs) == 5


@both_roads
async def test_a_request_without_log_probabilities_has_neither(road: Any) -> None:
    ended = await once(road, SimConfig(noise=QUIET), replace(REQUEST, sampling=Sampling(4)))
    assert ended.prefill_first == ended.first_logprobs == ()
