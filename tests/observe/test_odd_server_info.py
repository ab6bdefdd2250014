"""Settings of servers that report odd values: each setting has its proper form or is unknown."""

import json
import math
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_runs import Script, deployed, prompt

from harness.errors import UsageError
from harness.facts import Connector, Role, Server
from harness.models import read_config
from harness.observe.connectors import read_connectors
from harness.observe.exposition import Exposition, parse
from harness.observe.forms import mapping, name_of, whole
from harness.observe.server_info import _WANTED, _model_config, _server, first_model, learn
from harness.scenario import Route, Sampling

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["None", "auto", "", "16", "-1", "1.5", "NaN", "inf", "1e3", "1_6", "٣", "0", "{", '{"a": 1}', "[]"]
    ),
    st.text(max_size=8),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate objects with some of these fields, or any other value."""
    return st.fixed_dictionaries({}, optional=fields) | ANYTHING


NAMES = st.sampled_from(["NixlConnector", "OffloadingConnector", "MultiConnector", "Other"]) | ANYTHING
TIER = objects(block_size=ANYTHING, blocks_per_chunk=ANYTHING, cpu_bytes_to_use=ANYTHING, offload_prompt_only=ANYTHING)
TRANSFER = st.recursive(
    objects(kv_connector=NAMES, kv_connector_extra_config=TIER, kv_connector_module_path=ANYTHING),
    lambda inner: objects(
        kv_connector=NAMES, kv_connector_extra_config=objects(connectors=st.lists(inner, max_size=3) | ANYTHING)
    ),
    max_leaves=4,
)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "kv_transfer_config": TRANSFER,
        "cache_config": objects(cache_dtype=ANYTHING),
        "model_config": objects(dtype=ANYTHING, hf_config=ANYTHING),
        "scheduler_config": objects(max_num_batched_tokens=ANYTHING),
        "parallel_config": objects(tensor_parallel_size=ANYTHING),
    },
)
LABELS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("block_size", "num_gpu_blocks", "enable_prefix_caching", "cache_dtype"), SCALARS.map(str)),
)
MODEL = objects(id=ANYTHING, root=ANYTHING, max_model_len=ANYTHING, parent=ANYTHING)
NUMBERS = ("block_size", "num_blocks", "max_model_len", "max_num_batched_tokens", "ranks", "offload_block_size")
WORDS = ("version", "model", "model_path", "kv_dtype")


def exposing(labels: list[dict[str, str]]) -> Exposition:
    names = "".join(
        f"vllm:cache_config_info{{{','.join(f'{key}={json.dumps(value)}' for key, value in one.items())}}} 1\n"
        for one in labels
    )
    return parse(names, _WANTED)


@given(
    labels=st.lists(LABELS, min_size=1, max_size=2),
    models=objects(data=st.lists(MODEL, max_size=2) | ANYTHING),
    version=st.none() | st.dictionaries(st.just("version"), ANYTHING),
    info=st.none() | CONFIG,
)
@settings(max_examples=300, deadline=None)
def test_a_setting_has_its_proper_form_or_is_none(labels: Any, models: Any, version: Any, info: Any) -> None:
    try:
        metrics = exposing(labels)
    # The user gets an error that the metrics cannot be parsed.
    except ValueError:
        return
    model = first_model(models)
    if model is None:
        return
    server = _server(Server("d", Role.DECODE, "u"), metrics, model, version, info)
    assert all(value is None or value > 0 for value in (getattr(server, name) for name in NUMBERS))
    assert all(value is None or (isinstance(value, str) and value) for value in (getattr(server, n) for n in WORDS))
    assert all(isinstance(one, Connector) for one in server.connectors or ())
    assert all(isinstance(one, str) and one for one in server.unknown_connectors)
    assert server.asked_before_unknown <= len(server.connectors or ())
    assert server.prefix_caching in (None, True, False)
    assert server.offload_prompt_only in (None, True, False)
    config = _model_config(info)
    if config is not None:
        read_config(config)


@given(config=st.dictionaries(st.sampled_from(["model_type", "vocab_size", "text_config", "layer_types"]), ANYTHING))
@settings(deadline=None)
def test_any_model_configuration_is_read(config: Any) -> None:
    model = read_config(config)
    assert model.vocab_size is None or model.vocab_size > 0
    assert model.geometry is None
    assert model.geometry_unknown


@given(value=ANYTHING)
def test_a_whole_number_equals_the_reported_value(value: object) -> None:
    number = whole(value)
    if number is not None:
        assert not isinstance(value, bool)
        assert math.isclose(float(str(value)), number)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (16, 16),
        ("16", 16),
        (16.0, 16),
        ("16.0", 16),
        (" 16 ", 16),
        *(
            (odd, None)
            for odd in (True, 0, -1, 1.5, "1_6", "٣", "1e3", "None", "auto", math.nan, math.inf, [16], 10**40)
        ),
    ],
)
def test_any_other_value_than_a_positive_whole_number_is_none(value: object, number: int | None) -> None:
    assert whole(value) == number


@given(value=ANYTHING)
def test_mapping_returns_a_dict_and_name_of_the_value_or_none(value: object) -> None:
    assert isinstance(mapping(value), dict)
    assert name_of(value) in (None, value)


def test_a_label_on_which_samples_disagree_is_unknown() -> None:
    labels = [{"block_size": "16", "num_gpu_blocks": "10"}, {"block_size": "16", "num_gpu_blocks": "12"}]
    server = _server(Server("d", Role.DECODE, "u"), exposing(labels), {"id": "m"}, None, None)
    assert (server.block_size, server.num_blocks) == (16, None)


@pytest.mark.parametrize(
    ("cache", "model", "dtype"),
    [
        ({"cache_dtype": "auto"}, {"dtype": "torch.bfloat16"}, "bfloat16"),
        ({"cache_dtype": "fp8"}, {"dtype": "torch.bfloat16"}, "fp8"),
        (None, {"dtype": "torch.bfloat16"}, None),
        ({"cache_dtype": "auto"}, None, None),
        ({"cache_dtype": ["fp8"]}, {"dtype": 16}, None),
    ],
)
def test_the_kv_cache_type_is_read_or_unknown(cache: Any, model: Any, dtype: str | None) -> None:
    info = {"cache_config": cache, "model_config": model}
    assert _server(Server("d", Role.DECODE, "u"), exposing([{}]), {"id": "m"}, None, info).kv_dtype == dtype


def test_without_server_info_the_kv_cache_type_is_read_from_the_label() -> None:
    metrics = [exposing([{"cache_dtype": reported}]) for reported in ("fp8", "auto", "None")]
    servers = [_server(Server("d", Role.DECODE, "u"), one, {"id": "m"}, None, None) for one in metrics]
    assert [server.kv_dtype for server in servers] == ["fp8", None, None]


def test_an_empty_list_of_connectors_is_trusted_unless_the_metrics_show_some() -> None:
    info = {"kv_transfer_config": None}
    silent, counting = exposing([{}]), parse("vllm:cache_config_info 1\nvllm:nixl_bytes_transferred_sum 0\n", _WANTED)
    found = [_server(Server("d", Role.DECODE, "u"), one, {"id": "m"}, None, info) for one in (silent, counting)]
    assert [(one.connectors, one.connectors_listed) for one in found] == [((), True), ((Connector.NIXL,), False)]


def test_the_models_configuration_is_read_if_reported() -> None:
    printed = 'LlamaConfig {\n  "model_type": "llama",\n  "vocab_size": 4096\n}\n'
    assert _model_config({"model_config": {"hf_config": printed}}) == {"model_type": "llama", "vocab_size": 4096}
    assert [_model_config({"model_config": {"hf_config": odd}}) for odd in ("Llama", "{", 3, None)] == [None] * 4


@given(transfer=ANYTHING)
def test_a_list_of_connectors_is_read_or_unknown(transfer: object) -> None:
    found = read_connectors(transfer)
    assert found is None or found.known is not None


async def decode_server(handler: Handler) -> Server:
    """Learn the settings of a server that answers every GET with this handler."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as site, ClientSession() as session:
        learned = await learn(session, prefill_urls=[], decode_urls=[str(site.make_url(""))], proxy_url=None)
    return learned.deployment.servers[0]


BODIES = [b"[" * 100_000, b"\xff\xfe", b"null", b"3", b'"text"', b'{"data": null}', b'{"data": [{"id": null}]}', b""]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=nonsense"])
async def test_an_answer_without_a_list_of_models_is_a_usage_error(body: bytes, kind: str) -> None:
    async def odd(request: web.Request) -> web.Response:
        if request.path == "/metrics":
            return web.Response(text='vllm:cache_config_info{block_size="16"} 1\n')
        return web.Response(body=body, headers={"Content-Type": kind})

    with pytest.raises(UsageError, match="/v1/models"):
        await decode_server(odd)


@pytest.mark.parametrize("version", ["0.1.dev7+gabc", "0.32.1rc1.dev4", "unknown", "", None, "0", "²².³"])
def test_a_version_that_is_no_release_widens_the_prediction(version: str | None) -> None:
    script = Script(deployed(Connector.NIXL, Connector.OFFLOADING).with_servers(version=version))
    script.ask(prompt(130))
    script.ask(prompt(130), "logprobs", sampling=Sampling(max_tokens=2, prompt_logprobs=1), route=Route.PROXY)
    pulled = script.expect("logprobs")["decode-0"].of("external_kv_transfer")
    assert pulled is not None
    assert (pulled.low, pulled.high) == (0, 130)


def test_a_number_too_long_for_python_to_print_is_none() -> None:
    assert whole(10**4400) is None


async def test_a_server_without_cache_config_info_is_accepted_as_vllm() -> None:
    bodies = {
        "/metrics": "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n",
        "/v1/models": '{"data": [{"id": "m"}]}',
        "/server_info": '{"vllm_config": {"cache_config": {"block_size": 32}}}',
    }

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=bodies.get(request.path, ""))

    server = await decode_server(handler)
    assert (server.block_size, server.num_blocks, server.version, server.connectors) == (32, None, None, None)


def test_max_num_batched_tokens_and_ranks_are_read_from_the_engines_configuration() -> None:
    full = {"scheduler_config": {"max_num_batched_tokens": 64}, "parallel_config": {"tensor_parallel_size": 2}}
    silent = {"scheduler_config": {}, "parallel_config": None}
    found = [_server(Server("d", Role.DECODE, "u"), exposing([{}]), {"id": "m"}, None, one) for one in (full, silent)]
    assert [(one.max_num_batched_tokens, one.ranks) for one in found] == [(64, 2), (None, None)]
