"""The settings that a server reports, and the errors if it does not answer as vLLM does."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from harness.errors import UsageError
from harness.facts import Connector, Server
from harness.observe.server_info import learn

DATA = Path(__file__).parents[1] / "data"
TIER = {"block_size": 128, "offload_prompt_only": False}
CHILDREN = [
    {"kv_connector": "OffloadingConnector", "kv_connector_extra_config": TIER},
    {"kv_connector": "NixlConnector", "kv_connector_extra_config": None},
]
MULTI = {"kv_connector": "MultiConnector", "kv_connector_extra_config": {"connectors": CHILDREN}}
MODELS = {"data": [{"id": "lora", "parent": "canary"}, {"id": "canary", "root": "/m", "max_model_len": 2048}]}


def engine(metrics: str | None = None, info: dict[str, Any] | None = None, models: object = MODELS) -> web.Application:
    """A server that answers like vLLM; with ``info``, its kv_transfer_config, as in development mode."""
    app = web.Application()

    def answers(path: str, body: str) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.Response(text=body)

        app.router.add_get(path, handler)

    answers("/metrics", (DATA / "metrics_decode.txt").read_text() if metrics is None else metrics)
    answers("/version", '{"version": "0.32.0"}')
    answers("/v1/models", json.dumps(models))
    if info is not None:
        answers("/server_info", json.dumps({"vllm_config": {"kv_transfer_config": info}}))
    return app


async def decode_server(app: web.Application) -> Server:
    async with TestServer(app) as server, ClientSession() as session:
        learned = await learn(session, prefill_urls=[], decode_urls=[str(server.make_url("/"))], proxy_url=None)
    return learned.deployment.servers[0]


async def test_a_server_reports_its_blocks_version_and_model() -> None:
    server = await decode_server(engine())
    expected = (DATA / "metrics_decode.txt").read_text()
    assert f'block_size="{server.block_size}"' in expected
    assert f'num_gpu_blocks="{server.num_blocks}"' in expected
    assert (server.prefix_caching, server.version, server.max_model_len) == (True, "0.32.0", 2048)
    assert (server.model, server.model_path) == ("canary", "/m")
    assert not server.url.endswith("/")


async def test_server_info_reports_the_connectors_in_order_and_the_tier() -> None:
    learned = await decode_server(engine(info=MULTI))
    assert learned.connectors == (Connector.OFFLOADING, Connector.NIXL)
    assert (learned.offload_block_size, learned.offload_prompt_only) == (128, False)


async def test_by_default_a_chunk_is_one_block_and_only_prompts_are_offloaded() -> None:
    alone = {"kv_connector": "OffloadingConnector", "kv_connector_extra_config": {"cpu_bytes_to_use": 1}}
    learned = await decode_server(engine(info=alone))
    assert learned.connectors == (Connector.OFFLOADING,)
    assert (learned.offload_block_size, learned.offload_prompt_only) == (learned.block_size, True)
    by_count = {"kv_connector": "OffloadingConnector", "kv_connector_extra_config": {"blocks_per_chunk": 3}}
    assert (await decode_server(engine(info=by_count))).offload_block_size == 3 * (learned.block_size or 0)


async def test_without_server_info_the_metric_families_show_the_connectors() -> None:
    learned = await decode_server(engine())
    assert learned.connectors == (Connector.NIXL, Connector.OFFLOADING)
    assert (learned.offload_block_size, learned.offload_prompt_only) == (None, None)


async def test_without_connector_families_the_connectors_are_unknown() -> None:
    bare = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None",enable_prefix_caching="False"} 1\n'
    learned = await decode_server(engine(bare))
    assert learned.connectors is None
    assert (learned.block_size, learned.num_blocks, learned.prefix_caching) == (16, None, False)


@pytest.mark.parametrize(
    ("app", "cause"),
    [
        (engine(metrics="up 1\n"), "exposes neither vllm:cache_config_info nor any other family"),
        (engine(metrics="# about vllm: nothing\nup 1\n"), "exposes neither vllm:cache_config_info"),
        (engine(metrics="vllm:cache_config_info{ a b c"), "cannot be parsed"),
        (engine(models={"data": []}), "lists no model"),
        (engine(models=[]), "lists no model"),
        (web.Application(), "404"),
    ],
)
async def test_the_error_about_a_server_unlike_vllm_names_it_and_its_flag(app: web.Application, cause: str) -> None:
    with pytest.raises(UsageError) as raised:
        await decode_server(app)
    text = str(raised.value)
    assert cause in text
    assert "The decode server at http://127.0.0.1" in text
    assert "--decode-url" in text


async def test_an_unreachable_server_is_a_usage_error() -> None:
    async with ClientSession() as session:
        with pytest.raises(UsageError, match=r"prefill server at http://127\.0\.0\.1:9 .*--prefill-url"):
            await learn(session, prefill_urls=["http://127.0.0.1:9"], decode_urls=[], proxy_url=None)


async def test_servers_are_named_by_role_and_number() -> None:
    async with TestServer(engine(info=MULTI)) as server, ClientSession() as session:
        url = str(server.make_url("/"))
        learned = await learn(session, prefill_urls=[url], decode_urls=[url, url], proxy_url="http://proxy")
    deployment = learned.deployment
    assert [one.name for one in deployment.servers] == ["prefill-0", "decode-0", "decode-1"]
    assert (deployment.servers[2].offload_block_size, deployment.proxy_url) == (128, "http://proxy")
    assert deployment.model == "canary"
