"""For models with another kind of KV cache, bytes are unknown with the reason; everything else is judged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import counted_run as run
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from model_configs import LLAMA
from oracle_runs import Script, deployed, exactly, prompt

from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.token_sources import token_sources
from harness.deploy.learning import known_model, with_model
from harness.errors import ModelNotFound
from harness.facts import Deployment, Role, Server
from harness.models import read_config, read_model
from harness.observe.vocabulary import tokens_that_are_safe
from harness.verdict import Verdict

PLAIN = LLAMA | {"vocab_size": 4096, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": [2, 3]}
OTHERS: dict[str, dict[str, Any]] = {
    "a latent (MLA)": {"model_type": "deepseek_v3", "kv_lora_rank": 512},
    "'qwen3_next'": {"model_type": "qwen3_next"},
    "sliding window of 128": {"model_type": "mistral", "sliding_window": 128},
    "sliding_attention": {"model_type": "gpt_oss", "layer_types": ["sliding_attention", "full_attention"]},
    "state-space": {"model_type": "bamba", "mamba_d_state": 128},
    "an index": {"model_type": "deepseek_v32", "index_topk": 2048},
    "'[1]'": {"model_type": "[1]"},
    "None": {"model_type": None},
    "num_hidden_layers": {"num_hidden_layers": "many"},
}


@pytest.mark.parametrize(("why", "change"), OTHERS.items(), ids=OTHERS)
def test_vocabulary_and_special_tokens_are_read_for_any_kind_of_cache(
    why: str, change: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | change))
    model = read_model(tmp_path)
    assert (model.vocab_size, model.special_token_ids, model.max_model_len) == (4096, (1, 2, 3), 512)
    assert model.geometry is None
    assert why in model.geometry_unknown
    deployment = with_model(run.DEPLOYMENT, model)
    assert (deployment.vocab_size, deployment.geometry) == (4096, None)
    check = nixl_bytes(deployment, run.history())
    assert check.verdict is Verdict.UNKNOWN
    assert why in check.summary


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, True),
        ({"quantization_config": {"kv_cache_scheme": {}}}, True),
        ({"num_hidden_layers": None}, True),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512, "index_topk": 2048}, False),
        ({"model_type": "gpt_oss"}, False),
        ({"layer_types": ["full_attention", "linear_attention"]}, False),
        ({"model_type": "mistral", "sliding_window": 128}, False),
    ],
)
def test_prefix_cache_rules_are_known_for_one_group_of_full_attention(change: dict[str, Any], known: bool) -> None:
    assert (read_config(PLAIN | change).cache_rules_unknown == "") is known


HYBRID = replace(deployed(*run.DEPLOYMENT.servers[0].connectors or ()), cache_rules_unknown="it has states")


def again(deployment: Deployment) -> Script:
    script = Script(deployment)
    for phase in ("first", "second"):
        script.ask(prompt(130), phase)
    return script


def test_a_cold_prompt_is_transferred_except_one_token_that_may_be_left_to_decode() -> None:
    cold = again(HYBRID).expect("first")
    found = {name: cold["decode-0"].of(name) for name in ("external_kv_transfer", "local_compute", "local_cache_hit")}
    assert [(one.low, one.high) for one in found.values() if one] == [(129, 130), (0, 1), (0, 0)]
    prompts = cold["prefill-0"].of("prompt_tokens")
    assert prompts is not None
    assert (prompts.low, prompts.high) == (129, 130)
    assert exactly(cold["decode-0"], "prompt_tokens") == 130


def test_hits_lie_between_none_and_those_of_a_single_group() -> None:
    for name in ("prefill-0", "decode-0"):
        warm = again(HYBRID).expect("second")[name]
        hits = warm.of("prefix_hits")
        assert hits is not None
        assert (hits.low, hits.high) == (0, 128)
        assert "it has states" in warm.why("prefix_hits")
    assert exactly(again(replace(HYBRID, cache_rules_unknown="")).expect("second")["decode-0"], "prefix_hits") == 128


def test_a_small_pool_does_not_lower_the_possible_hits() -> None:
    script = Script(HYBRID.with_servers(num_blocks=5))
    for tokens, phase in ((prompt(130), "first"), (prompt(192, start=5000), "evicts"), (prompt(130), "second")):
        script.ask(tokens, phase)
    hits = script.expect("second")["decode-0"].of("prefix_hits")
    assert hits is not None
    assert (hits.low, hits.high) == (0, 128)


def one_token_left() -> Deployment:
    return replace(run.DEPLOYMENT, cache_rules_unknown="it has states")


@pytest.mark.parametrize(("left", "verdict"), [(0, Verdict.VALID), (1, Verdict.VALID), (2, Verdict.INVALID)])
def test_prefill_may_leave_only_the_last_token_of_each_prompt(left: int, verdict: Verdict) -> None:
    tokens = 228 - 2 * left
    prefill = run.PREFILL | dict.fromkeys(("prompt", "compute", "prefix_queries", "external_queries"), tokens)
    decode = run.DECODE | {"external": tokens, "external_hits": tokens, "compute": 2 * left}
    check = token_sources(one_token_left(), run.history(run.readings(prefill, decode)))
    assert check.verdict is verdict
    strict = token_sources(run.DEPLOYMENT, run.history(run.readings(prefill, decode)))
    assert strict.verdict is (Verdict.INVALID if left else Verdict.VALID)


def test_a_lost_transfer_is_found_for_any_model() -> None:
    silent = run.DECODE | {"external": 0, "compute": 228, "external_hits": 0}
    assert token_sources(one_token_left(), run.history(run.readings(decode=silent))).verdict is Verdict.INVALID


def test_without_a_configuration_bytes_are_unknown_and_the_summary_says_what_to_do() -> None:
    deployment = with_model(replace(run.DEPLOYMENT, model_path="org/name"), None)
    assert "org/name cannot be read here (--model" in nixl_bytes(deployment, run.history()).summary
    assert token_sources(deployment, run.history()).verdict is Verdict.VALID


async def vocabulary_of(answer: object, status: int = 200) -> dict[str, Any]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=answer if isinstance(answer, str) else json.dumps(answer), status=status)

    app = web.Application()
    app.router.add_post("/tokenize", handler)
    async with TestServer(app) as site, ClientSession() as session:
        server = Server("decode-0", Role.DECODE, str(site.make_url("")).rstrip("/"), model="m")
        return await tokens_that_are_safe(session, Deployment((server,), None, "m"))


async def test_a_servers_tokenizer_gives_a_range_of_valid_token_ids() -> None:
    large = await vocabulary_of({"tokens": [5, 31_999, 17]})
    assert (large["vocab_size"], large["special_token_ids"]) == (32_000, tuple(range(1000)))
    assert not large["vocab_is_whole"]
    small = await vocabulary_of({"tokens": [0, 255]})
    assert (small["vocab_size"], small["special_token_ids"]) == (256, tuple(range(16)))


@pytest.mark.parametrize(
    "answer",
    ["no JSON", [], {"tokens": None}, {"tokens": ["a"]}, {"tokens": [-1, 500]}, {"tokens": [True]}, {"tokens": [3]}],
)
async def test_an_answer_without_a_list_of_token_ids_gives_no_range(answer: object) -> None:
    assert await vocabulary_of(answer) == {}
    assert await vocabulary_of({"tokens": [500]}, status=404) == {}


def test_nothing_is_known_of_a_hub_model_that_is_not_in_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    named = replace(run.DEPLOYMENT, model_path="org/absent")
    assert known_model(named, "org/absent", None) is None
    model = known_model(named, "org/absent", PLAIN)
    assert model is not None
    assert model.vocab_size == 4096


@pytest.mark.parametrize("path", ["/no/such/path", "./absent", "~/absent"])
def test_a_directory_without_a_model_is_a_usage_error(path: str) -> None:
    with pytest.raises(ModelNotFound):
        known_model(replace(run.DEPLOYMENT, model_path=path), path, PLAIN)


def test_a_path_that_only_the_servers_can_read_is_no_error() -> None:
    assert known_model(replace(run.DEPLOYMENT, model_path="/no/such/path"), None, None) is None
