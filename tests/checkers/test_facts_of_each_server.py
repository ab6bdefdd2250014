"""Each server has its own facts."""

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import counted_run as run
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from oracle_runs import NIXL, OFFLOADING, Script, exactly, prompt

from harness.checkers import judge
from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.offload_bytes import offload_bytes
from harness.facts import Connector, Deployment, KVGeometry, Role
from harness.observe.server_info import _device, learn
from harness.oracle import ServerExpectation
from harness.reports.files.result_json import _deployment as of_result
from harness.reports.overview import _deployment as summary_line
from harness.store.noise_file import noise_key
from harness.verdict import Verdict

BOTH = run.DEPLOYMENT.with_servers(num_blocks=101, offload_blocks=1000)


def having(prefill: dict[str, Any] | None = None, decode: dict[str, Any] | None = None, **fields: Any) -> Deployment:
    """The pair with changed fields of its servers."""
    first, second = BOTH.servers
    return replace(BOTH, servers=(replace(first, **(prefill or {})), replace(second, **(decode or {}))), **fields)


def expect(deployment: Deployment, *, tokens: int = 130) -> dict[str, ServerExpectation]:
    script = Script(deployment)
    script.ask(prompt(tokens))
    return script.expect()


def test_a_tier_on_prefill_only_is_expected_on_prefill_only() -> None:
    expected = expect(having(decode={"connectors": (NIXL,)}))
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 2 * run.BLOCK
    assert exactly(expected["decode-0"], "offload_store_bytes") == 0
    assert exactly(expected["decode-0"], "external_kv_transfer") == 130


def test_a_tier_on_decode_only_is_expected_on_decode_only() -> None:
    expected = expect(having(prefill={"connectors": (NIXL,)}))
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 0
    assert exactly(expected["decode-0"], "offload_store_bytes") == 2 * run.BLOCK


def test_each_tier_has_chunks_of_its_own_size() -> None:
    expected = expect(having(decode={"offload_block_size": 128}), tokens=192)
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 3 * run.BLOCK
    assert exactly(expected["decode-0"], "offload_store_bytes") == 2 * run.BLOCK


def test_the_order_of_connectors_is_each_servers_own() -> None:
    deployment = having(prefill={"connectors": (OFFLOADING, NIXL)}, decode={"num_blocks": 4})
    script = Script(deployment)
    for tokens, phase in ((prompt(130), "first"), (prompt(192, start=5000), "evicts"), (prompt(130), "second")):
        script.ask(tokens, phase)
    assert exactly(script.expect("second")["decode-0"], "nixl_bytes") == 3 * run.BLOCK


def test_transfers_are_expected_although_decode_has_no_nixl() -> None:
    """If prefill has NIXL, the user wants transfers, so a pair without transfers is wrong."""
    expected = expect(having(decode={"connectors": ()}))
    assert exactly(expected["decode-0"], "external_kv_transfer") == 130
    computed = run.DECODE | {"external": 0, "compute": 228, "external_queries": 0, "external_hits": 0, "nixl": 0}
    without = having(decode={"connectors": ()})
    assert judge(without, run.history(run.readings(decode=computed))).verdict is Verdict.INVALID


def test_a_connector_on_one_server_is_enough_for_its_checker() -> None:
    alone = having(prefill={"connectors": (NIXL,)})
    assert "offload_bytes" in {check.name for check in judge(alone, run.history()).checks}
    assert alone.has(OFFLOADING)
    assert (alone.has(OFFLOADING, Role.PREFILL), alone.has(OFFLOADING, Role.DECODE)) == (False, True)


def test_nixl_bytes_are_unknown_if_kv_types_differ() -> None:
    mixed = having(prefill={"kv_dtype": "bfloat16"}, decode={"kv_dtype": "fp8"})
    check = nixl_bytes(mixed, run.history())
    assert check.verdict is Verdict.UNKNOWN
    assert "the KV of decode-0 is of type fp8, and prefill's of type bfloat16" in check.summary
    expected = expect(mixed)
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 2 * run.BLOCK
    assert exactly(expected["decode-0"], "offload_store_bytes") == run.BLOCK


@pytest.mark.parametrize(("dtype", "size"), [(None, 2), ("bfloat16", 2), ("float32", 4), ("fp8_e4m3", 1)])
def test_a_servers_own_type_is_the_size_of_its_elements(dtype: str | None, size: int) -> None:
    deployment = having(decode={"kv_dtype": dtype})
    assert deployment.geometry_of(deployment.servers[1]) == KVGeometry(5, 5, 10, 10, size)


def test_a_type_of_unknown_size_leaves_that_servers_bytes_unknown() -> None:
    expected = expect(having(decode={"kv_dtype": "nvfp4"}))
    assert "nvfp4" in expected["decode-0"].why("offload_store_bytes")
    assert expected["decode-0"].of("nixl_bytes") is None
    assert exactly(expected["prefill-0"], "offload_store_bytes") == 2 * run.BLOCK


DOUBLED = {name: 2 * run.DECODE[name] for name in ("nixl", "store", "store_legacy")}


@pytest.mark.parametrize("checker", [nixl_bytes, offload_bytes])
@pytest.mark.parametrize(
    ("dtype", "launched", "verdict"),
    [(None, False, Verdict.UNKNOWN), ("bfloat16", False, Verdict.INVALID), (None, True, Verdict.INVALID)],
)
def test_bytes_that_an_unreported_kv_type_explains_are_unknown(
    checker: Any, dtype: str | None, launched: bool, verdict: Verdict
) -> None:
    deployment = replace(run.DEPLOYMENT.with_servers(kv_dtype=dtype), launched=launched)
    check = checker(deployment, run.history(run.readings(decode=run.DECODE | DOUBLED)))
    assert check.verdict is verdict
    assert ("--kv-cache-dtype" in check.summary) is (verdict is Verdict.UNKNOWN)


def test_the_noise_file_depends_on_the_facts_of_all_servers() -> None:
    one = having(prefill={"kv_dtype": "float32"}, decode={"kv_dtype": "float32"})
    other = having(prefill={"kv_dtype": "float32"}, decode={"kv_dtype": "bfloat16", "connectors": (NIXL,)})
    assert noise_key(one, 4)["kv dtype"] == "float32"
    assert noise_key(one, 4)["connectors"] == "nixl, offloading"
    assert noise_key(other, 4)["kv dtype"] == "float32/bfloat16"
    assert noise_key(other, 4)["connectors"] == "nixl, offloading/nixl"


def reporting(name: str, *connectors: str, cache_dtype: str = "auto", config: str | None = None) -> web.Application:
    """A server with these connectors that serves its model under this name."""
    children = [{"kv_connector": connector} for connector in connectors]
    answers = {
        "/metrics": 'vllm:cache_config_info{block_size="16"} 1\n',
        "/version": '{"version": "0.32.0"}',
        "/v1/models": json.dumps({"data": [{"id": name, "root": f"/models/{name}"}]}),
        "/server_info": json.dumps(
            {
                "vllm_config": {
                    "cache_config": {"cache_dtype": cache_dtype},
                    "model_config": {"dtype": "torch.bfloat16", "hf_config": config},
                    "kv_transfer_config": {
                        "kv_connector": "MultiConnector",
                        "kv_connector_extra_config": {"connectors": children},
                    },
                }
            }
        ),
    }
    app = web.Application()
    for path, body in answers.items():

        async def handler(_: web.Request, body: str = body) -> web.Response:
            return web.Response(text=body)

        app.router.add_get(path, handler)
    return app


async def learned_from(prefill: web.Application, decode: web.Application) -> Any:
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(TestServer(app)) for app in (prefill, decode)]
        session = await stack.enter_async_context(ClientSession())
        urls = [str(site.make_url("")).rstrip("/") for site in sites]
        return await learn(session, prefill_urls=urls[:1], decode_urls=urls[1:], proxy_url=None)


async def test_each_server_is_asked_for_its_own_facts() -> None:
    learned = await learned_from(
        reporting("a", "NixlConnector"),
        reporting("a", "Other", "OffloadingConnector", "NixlConnector", cache_dtype="fp8"),
    )
    prefill, decode = learned.deployment.servers
    assert (prefill.connectors, prefill.unknown_connectors, prefill.kv_dtype) == ((NIXL,), (), "bfloat16")
    assert (decode.connectors, decode.unknown_connectors, decode.kv_dtype) == ((OFFLOADING, NIXL), ("Other",), "fp8")
    assert decode.connector_names == ("Other", "offloading", "nixl")


async def test_requests_use_decodes_name_of_the_model() -> None:
    learned = await learned_from(reporting("of-prefill"), reporting("of-decode"))
    assert (learned.deployment.model, learned.deployment.model_path) == ("of-decode", "/models/of-decode")
    assert [server.model for server in learned.deployment.servers] == ["of-prefill", "of-decode"]


async def test_the_model_is_known_if_one_server_reports_it() -> None:
    learned = await learned_from(reporting("a"), reporting("a", config='LlamaConfig {"vocab_size": 4096}'))
    assert learned.config == {"vocab_size": 4096}


def test_a_connector_of_one_server_is_in_every_report() -> None:
    deployment = having(decode={"connectors": (Connector.NIXL,), "unknown_connectors": ("Other",)})
    assert summary_line(deployment).count("MultiConnector[nixl, offloading]/MultiConnector[Other, nixl]") == 1
    assert of_result(deployment)["connector"] == {"prefill-0": ("nixl", "offloading"), "decode-0": ("Other", "nixl")}
    assert of_result(run.DEPLOYMENT)["connector"] == ("nixl", "offloading")


@pytest.mark.parametrize(
    ("config", "device"),
    [
        ({"device": "cpu"}, "cpu"),
        ({"device": "cuda:0"}, "cuda"),
        ({"device": None, "device_type": "cuda"}, "cuda"),
        ({"device": "auto"}, None),
        ({"device": 7}, None),
        ("cpu", None),
        (None, None),
    ],
)
def test_the_device_is_read_from_the_configuration(config: object, device: str | None) -> None:
    assert _device({"device_config": config}) == device
    assert _device(None) is None


def test_decodes_unknown_counters_name_a_prefill_server_without_block_size() -> None:
    prefill, decode = run.DEPLOYMENT.servers
    other = replace(prefill, name="prefill-1", url="http://other", block_size=None)
    for prefills in ((replace(prefill, block_size=None),), (prefill, other)):
        script = Script(replace(run.DEPLOYMENT, servers=(*prefills, decode)))
        script.ask(prompt(100))
        why = script.expect()["decode-0"].why("nixl_bytes")
        assert why == f"the block size of {prefills[-1].name}, whose blocks decode-0 reads, is not known"
