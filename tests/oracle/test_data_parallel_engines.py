"""Several engines behind one URL, each with its own caches: sums are exact, hits lie between none and one cache's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import oracle_runs as written
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cache_sequences import Author, SimulatedRun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_runs import BLOCK, NIXL, OFFLOADING, bounds, deployed, exactly, prompt

from harness.facts import Deployment, Role
from harness.history import Operation
from harness.observe.server_info import learn
from harness.oracle import PREDICTED, predict
from harness.sim import QUIET, SimConfig
from harness.verdict import Bounds


def behind_one_url(deployment: Deployment) -> Deployment:
    """The first server of each role, as if all the role's servers were its engines."""
    one_each = (
        replace(deployment.of(role)[0], url=f"http://{role}", engines=len(deployment.of(role))) for role in Role
    )
    return replace(deployment, servers=tuple(one_each))


def relabelled(operation: Operation) -> Operation:
    """The operation as the client sees it, with one address for each role."""
    ended = operation.ended
    prefill = "http://prefill" if ended.prefill_server else None
    return replace(operation, ended=replace(ended, prefill_server=prefill, decode_server="http://decode"))


def added_up(grown: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, float]] = {}
    for server, counters in grown.items():
        role = sums.setdefault(f"{server.partition('-')[0]}-0", {})
        for name, value in counters.items():
            role[name] = role.get(name, 0) + value
    return sums


@pytest.mark.parametrize("connectors", [(NIXL,), (NIXL, OFFLOADING), (OFFLOADING, NIXL)])
@pytest.mark.parametrize("variant", [{}, {"num_blocks": 60}, {"num_blocks": 60, "offload_chunks": 40}], ids=str)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), concurrency=st.integers(1, 8))
def test_no_sum_over_engines_is_ever_outside_its_bounds(
    connectors: Any, variant: dict[str, Any], seed: int, concurrency: int
) -> None:
    config = SimConfig(noise=QUIET, eos_rate=0.0, prefills=2, decodes=2, connectors=connectors, **variant)
    served = SimulatedRun(config, seed)
    author = Author(seed, 16, range(300, 4000), salts=(None, "salt"))
    operations: list[Operation] = []
    grown = {}
    for name, count, at_once in (("one", 8, 1), ("two", 12, concurrency), ("three", 6, 1)):
        more, seen = served.serve(author.phase(name, count, at_once))
        operations += map(relabelled, more)
        grown["random", name] = added_up(seen)
    expected = predict(behind_one_url(served.deployment), operations)
    wrong = [
        f"{phase} {server} {name}: {counters[name]} not {within}"
        for phase, servers in grown.items()
        for server, counters in servers.items()
        for name in PREDICTED
        if not (name.startswith("offload") and (counters["allocation_failures"] or counters["preemptions"]))
        and counters[name] not in (within := expected[phase][server].of(name) or Bounds(0, 0))
    ]
    assert not wrong


def engines(count: int, *connectors: Any) -> written.Script:
    return written.Script(deployed(*connectors, engines=count))


def test_a_load_without_hits_is_exact_however_many_engines_serve_it() -> None:
    script = engines(2, NIXL, OFFLOADING)
    script.together([prompt(100), prompt(128, 5000), prompt(64, 7000)])
    for expectation in script.expect().values():
        for name in PREDICTED:
            if name != "nixl_transfers":
                exactly(expectation, name)
    assert exactly(script.expect()["decode-0"], "nixl_bytes") == 5 * BLOCK


def test_a_repeated_prompt_finds_between_none_and_all_of_its_blocks() -> None:
    script = engines(2, NIXL)
    script.ask(prompt(200))
    script.ask(prompt(200), "again")
    decode = script.expect("again")["decode-0"]
    assert bounds(decode, "local_cache_hit") == Bounds(0, 192)
    assert bounds(decode, "external_kv_transfer") == Bounds(8, 200)
    assert bounds(decode, "nixl_bytes") == Bounds(BLOCK, 4 * BLOCK)
    assert exactly(decode, "prompt_tokens") == 200
    assert exactly(decode, "local_compute") == 0
    assert "2 engines of decode-0" in decode.why("local_cache_hit")
    alone = engines(1, NIXL)
    alone.operations = script.operations
    assert exactly(alone.expect("again")["decode-0"], "local_cache_hit") == 192


CACHE = 'vllm:cache_config_info{{block_size="16",num_gpu_blocks="100",engine="{}"}} 1\n'


@pytest.mark.parametrize(
    ("metrics", "count"),
    [
        (CACHE.format(0), 1),
        (CACHE.format(0) + CACHE.format(1), 2),
        ('vllm:cache_config_info{block_size="16"} 1\n', 1),
        (CACHE.format(0) + "".join(f'vllm:num_requests_running{{engine="{n}"}} 0\n' for n in range(4)), 4),
        (CACHE.format(0) + CACHE.format(0), 1),
    ],
)
async def test_the_engines_of_a_server_are_counted_by_their_labels(metrics: str, count: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=metrics if request.path == "/metrics" else '{"data": [{"id": "canary"}]}')

    app = web.Application()
    app.router.add_get("/{path:metrics|v1/models}", answer)
    async with TestServer(app) as server, ClientSession() as session:
        url = str(server.make_url(""))
        learned = await learn(session, prefill_urls=[], decode_urls=[url], proxy_url=None)
    assert learned.deployment.servers[0].engines == count
