"""The oracle on prompts that are in no cache. Expected numbers are calculated by hand, for blocks of 64 tokens."""

from dataclasses import replace

import counted_run as run
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.facts import Connector, Deployment, Role, Server
from harness.history import Choice, History, Outcome, Usage
from harness.oracle import PREDICTED, ServerExpectation, predict
from harness.scenario import Request, Route, Sampling
from harness.verdict import Bounds

KEY = ("cold", "load")


def prompt(length: int, start: int = 0) -> tuple[int, ...]:
    return tuple(range(start, start + length))


def ask(length: int, *, output: int = 5, start: int = 0, **fields: object) -> tuple[Request, dict[str, object]]:
    sampling = fields.pop("sampling", Sampling(max_tokens=output))
    name = f"r{start}-{length}-{len(fields)}"
    asked = Request(name, prompt(length, start), sampling, **fields)  # type: ignore[arg-type]
    ended = {"choices": (Choice(tuple(range(output))),), "usage": Usage(length, output)}
    return asked, ended


def expect(
    *asked: tuple[Request, dict[str, object]], deployment: Deployment = run.DEPLOYMENT
) -> dict[str, ServerExpectation]:
    entries = [entry for request, ended in asked for entry in run.operation(request, **ended)]
    return dict(predict(deployment, History(tuple(entries)).operations())[KEY])


def numbers(expectation: ServerExpectation) -> dict[str, int]:
    """The counters that are not 0. Every counter must be exact."""
    bounds = {name: expectation.of(name) for name in PREDICTED}
    assert all(b is not None for b in bounds.values())
    return {name: b.low for name, b in bounds.items() if b and b.exact and b.low}


def test_prefill_computes_and_decode_pulls_a_cold_prompt() -> None:
    expected = expect(ask(130))
    lookups = {"prompt_tokens": 130, "prefix_queries": 130, "external_queries": 130}
    stored = {"offload_store_bytes": 2 * run.BLOCK}
    assert numbers(expected["prefill-0"]) == lookups | stored | {"local_compute": 130, "generation_tokens": 1}
    pulled = {"external_kv_transfer": 130, "external_hits": 130, "nixl_bytes": 3 * run.BLOCK}
    assert numbers(expected["decode-0"]) == lookups | stored | pulled | {"generation_tokens": 5}
    assert expected["decode-0"].of("nixl_transfers") == Bounds(1, run.GEOMETRY.kv_heads)


def test_a_prompt_of_one_token_is_looked_up_twice_and_computed_again_on_decode() -> None:
    tokens = {"prompt_tokens": 1, "local_compute": 1, "generation_tokens": 5}
    looked_up = {"prefix_queries": 2, "external_queries": 2, "external_hits": 1}
    assert numbers(expect(ask(1))["decode-0"]) == tokens | looked_up | {"nixl_bytes": run.BLOCK}


@pytest.mark.parametrize(("tokens", "blocks", "chunks"), [(63, 1, 0), (64, 1, 1), (65, 2, 1), (128, 2, 2), (129, 3, 2)])
def test_a_partial_last_block_is_transferred_whole_and_never_stored(tokens: int, blocks: int, chunks: int) -> None:
    decode = expect(ask(tokens))["decode-0"]
    assert decode.of("nixl_bytes") == Bounds.exactly(blocks * run.BLOCK)
    assert decode.of("offload_store_bytes") == Bounds.exactly(chunks * run.BLOCK)


@pytest.mark.parametrize(
    ("prompt_only", "output", "chunks"),
    [(True, 30, (1, 1)), (False, 28, (1, 1)), (False, 29, (2, 2)), (None, 29, (1, 2))],
)
def test_output_without_its_last_token_is_stored_if_the_tier_takes_output(
    prompt_only: bool | None, output: int, chunks: tuple[int, int]
) -> None:
    # 100 prompt tokens and 28 output tokens with KV make 128; the last sampled token has no KV.
    deployment = run.DEPLOYMENT.with_servers(offload_prompt_only=prompt_only)
    expected = expect(ask(100, output=output), deployment=deployment)
    low, high = chunks
    assert expected["decode-0"].of("offload_store_bytes") == Bounds(low * run.BLOCK, high * run.BLOCK)
    assert expected["prefill-0"].of("offload_store_bytes") == Bounds.exactly(run.BLOCK)


def test_chunks_of_several_blocks_are_stored_whole() -> None:
    deployment = run.DEPLOYMENT.with_servers(offload_block_size=192)
    stored = expect(ask(400), deployment=deployment)["prefill-0"].of("offload_store_bytes")
    assert stored == Bounds.exactly(6 * run.BLOCK)
    size_unknown = run.DEPLOYMENT.with_servers(offload_block_size=None)
    assert expect(ask(400), deployment=size_unknown)["prefill-0"].of("offload_store_bytes") == Bounds(0, 6 * run.BLOCK)


@pytest.mark.parametrize(("route", "server"), [(Route.PREFILL, "prefill-0"), (Route.DECODE, "decode-0")])
def test_a_server_asked_directly_computes_everything_and_the_other_does_nothing(route: Route, server: str) -> None:
    expected = expect(ask(130, route=route))
    assert expected[server].of("local_compute") == Bounds.exactly(130)
    assert expected[server].of("nixl_bytes") == Bounds.exactly(0)
    (other,) = set(expected) - {server}
    assert numbers(expected[other]) == {}


def test_an_unknown_outcome_widens_bounds_and_a_request_never_sent_counts_nothing() -> None:
    request, _ = ask(130)
    lost = expect((request, {"outcome": Outcome.INFO, "status": None, "choices": (), "usage": None}))
    assert lost["decode-0"].of("external_kv_transfer") == Bounds(0, 130)
    assert lost["decode-0"].of("generation_tokens") == Bounds(0, 5)
    refused = expect((request, {"outcome": Outcome.FAIL, "status": None, "choices": (), "usage": None}))
    assert numbers(refused["prefill-0"]) == numbers(refused["decode-0"]) == {}
    assert refused["prefill-0"].of("prompt_tokens") == Bounds.exactly(0)


def test_a_refusal_through_the_proxy_may_come_from_decode_after_prefill_has_worked() -> None:
    request, _ = ask(130)
    refused = expect((request, {"outcome": Outcome.FAIL, "status": 400, "choices": (), "usage": None}))
    assert refused["prefill-0"].of("local_compute") == Bounds(0, 130)
    assert refused["decode-0"].of("prompt_tokens") == Bounds.exactly(0)


def test_prompts_with_different_salts_or_first_tokens_share_no_blocks() -> None:
    request, ended = ask(130)
    salted = replace(request, request_id="salted", cache_salt="x")
    other = replace(request, request_id="other", prompt=(7, *prompt(130)[1:]))
    decode = expect((request, ended), (salted, ended), (other, ended))["decode-0"]
    assert decode.of("external_kv_transfer") == Bounds.exactly(390)


def test_a_text_of_unknown_tokens_is_unpredictable_and_so_is_a_prompt_that_may_share_its_blocks() -> None:
    request, ended = ask(130)
    text = replace(request, request_id="text", prompt="hello")
    decode = expect((text, ended), (request, ended))["decode-0"]
    assert "text was tokenized" in decode.why("local_compute")
    known = expect((text, ended | {"prompt_token_ids": prompt(130)}))["decode-0"]
    assert known.of("external_kv_transfer") == Bounds.exactly(130)


@pytest.mark.parametrize(
    ("deployment", "counters"),
    [
        (replace(run.DEPLOYMENT, geometry=None), {"nixl_bytes", "offload_store_bytes", "offload_load_bytes"}),
        (run.DEPLOYMENT.with_servers(connectors=None), {"offload_store_bytes", "offload_load_bytes"}),
    ],
)
def test_a_missing_fact_makes_the_counters_that_need_it_unpredictable(
    deployment: Deployment, counters: set[str]
) -> None:
    decode = expect(ask(130), deployment=deployment)["decode-0"]
    assert {name for name in PREDICTED if decode.of(name) is None} == counters
    assert all(decode.why(name) for name in counters)


def test_without_nixl_a_decode_server_computes() -> None:
    deployment = run.DEPLOYMENT.with_servers(connectors=(Connector.OFFLOADING,))
    decode = expect(ask(130), deployment=deployment)["decode-0"]
    assert decode.of("local_compute") == Bounds.exactly(130)
    assert decode.of("nixl_bytes") == Bounds.exactly(0)


TWO = replace(
    run.DEPLOYMENT,
    servers=(*run.DEPLOYMENT.servers, Server("decode-1", Role.DECODE, "http://d2", 64, 100, prefix_caching=True)),
)


def test_of_several_servers_the_one_that_the_proxy_names_counts() -> None:
    request, ended = ask(130)
    expected = expect((request, ended | {"decode_server": "http://d2"}), deployment=TWO)
    assert expected["decode-1"].of("prompt_tokens") == Bounds.exactly(130)
    assert expected["decode-0"].of("prompt_tokens") == Bounds.exactly(0)


def test_of_several_servers_without_a_name_their_sum_counts() -> None:
    expected = expect(ask(130), deployment=TWO)
    assert set(expected) == {"prefill-0", "decode"}
    assert expected["decode"].of("prompt_tokens") == Bounds.exactly(130)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_sources_sum_to_the_prompt_tokens_on_every_server(lengths: list[int]) -> None:
    expected = expect(*(ask(length, start=1000 * i) for i, length in enumerate(lengths)))
    for one in expected.values():
        sources = [one.of(name) for name in ("local_compute", "local_cache_hit", "external_kv_transfer")]
        assert sum(b.low for b in sources if b) == sum(lengths)
    blocks = sum(len(range(0, length, 64)) for length in lengths)
    assert expected["decode-0"].of("nixl_bytes") == Bounds.exactly(blocks * run.BLOCK)
