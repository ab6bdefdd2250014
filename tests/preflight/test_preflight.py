"""The preflight's checks on reports and counters of servers: which findings stop a run, and which do not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.facts import Deployment, KVGeometry, Role, Server
from harness.loads.demand import Demand
from harness.observe.growth import Delta
from harness.preflight import (
    Item,
    Level,
    NotReady,
    ServerReport,
    check_first_transfers,
    check_proxy_servers,
    check_transfer_bytes,
    refuse,
)
from harness.preflight.compatibility import check_connectors, check_kv_format, check_model
from harness.preflight.demand import check_demands
from harness.preflight.distinct import check_distinct, same_address
from harness.preflight.generation_defaults import check_generation_defaults
from harness.preflight.server_report import Answers, report_of

P = Server(
    "prefill-0", Role.PREFILL, "http://p:8100", block_size=32, num_blocks=64, version="0.32.0", max_model_len=512
)
D = Server("decode-0", Role.DECODE, "http://d:8200", block_size=32, num_blocks=64, version="0.32.0", max_model_len=400)
DEPLOYMENT = Deployment((P, D), "http://proxy:8000", "canary", geometry=KVGeometry(4, 2, 32, 32, 2))


def transfer(name: str = "NixlConnector", role: str = "kv_both", **extra: Any) -> dict[str, Any]:
    return {"kv_connector": name, "kv_role": role, "kv_connector_extra_config": extra}


def multi(*children: dict[str, Any]) -> dict[str, Any]:
    return transfer("MultiConnector", connectors=list(children))


def report(
    server: Server,
    *,
    kv: Mapping[str, Any] | None = None,
    root: str = "/models/canary",
    names: Sequence[str] = ("canary",),
    dtype: str = "torch.bfloat16",
    cache: Mapping[str, Any] | None = None,
    **config: Any,
) -> ServerReport:
    """The report of a server in development mode."""
    model_config = {"dtype": dtype, **config.pop("model_config", {})}
    info = {"model_config": model_config, "cache_config": dict(cache or {}), "kv_transfer_config": kv, **config}
    models = {"data": [{"id": name, "root": root} for name in names]}
    return report_of(server, Answers(models=models, info={"vllm_config": info}))


def silent(server: Server) -> ServerReport:
    """The report of a server without development mode."""
    return report_of(server, Answers())


def pair(p: Mapping[str, Any], d: Mapping[str, Any]) -> list[ServerReport]:
    return [report(P, **{"kv": transfer(), **p}), report(D, **{"kv": transfer(), **d})]


def levels(items: Sequence[Item] | Any) -> list[Level]:
    return [item.level for item in items]


def stops(items: Any) -> str:
    """The message of the error for the items that stop a run."""
    with pytest.raises(NotReady) as refused:
        refuse(items)
    return str(refused.value)


# --- servers ---


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:8100", "http://127.0.0.1:8100", True),
        ("http://[::1]:8100", "http://127.0.0.1:8100", True),
        ("http://127.0.0.2:8100", "http://localhost:8100/", True),
        ("http://p:80", "http://P", True),
        ("http://p:8100", "http://alias:8100", True),
        ("http://127.0.0.1:8100", "http://127.0.0.1:8101", False),
        ("http://p:8100", "http://d:8100", False),
        ("http://p:8100/one", "http://p:8100/other", False),
    ],
)
def test_an_address_is_recognised_in_every_spelling(one: str, other: str, *, same: bool) -> None:
    resolved = {"alias": frozenset({"10.0.0.1"}), "p": frozenset({"10.0.0.1"}), "d": frozenset({"10.0.0.2"})}
    assert same_address(one, other, resolved) is same


def test_one_engine_behind_two_addresses_is_one_server() -> None:
    kv = transfer() | {"engine_id": "e"}
    both = [report(P, kv=kv, instance_id="1"), report(D, kv=kv, instance_id="1")]
    assert "prefill-0 and decode-0 are the same server" in stops(check_distinct(both, None, {}))
    others = [report(P, kv=kv, instance_id="1"), report(D, kv=kv, instance_id="2")]
    assert levels(check_distinct(others, None, {})) == [Level.OK]


def test_a_proxy_given_as_a_server_and_a_server_given_as_the_proxy_stop_a_run() -> None:
    proxy = report_of(D, Answers(status={"prefill": [], "decode": []}))
    assert "is the address of a proxy" in stops(check_distinct([silent(P), proxy], None, {}))
    assert "is the address of decode-0" in stops(check_distinct([silent(P), silent(D)], "http://d:8200/", {}))


# --- model ---


def test_a_model_name_that_is_not_served_is_reported_with_the_served_names() -> None:
    message = stops(check_model(pair({}, {"names": ["canary-v2", "adapter"]}), "canary"))
    assert "decode-0 at http://d:8200 does not serve the model 'canary'" in message
    assert "'canary-v2', 'adapter'" in message


def test_servers_with_different_weights_stop_a_run() -> None:
    assert "/models/other" in stops(check_model(pair({}, {"root": "/models/other"}), "canary"))
    # NIXL compares the whole path, unless its configuration switches this off.
    assert "/mnt/canary" in stops(check_model(pair({}, {"root": "/mnt/canary"}), "canary"))
    lenient = {"kv": transfer(enforce_handshake_compat=False)}
    assert levels(check_model(pair(lenient, lenient | {"root": "/mnt/canary"}), "canary")) == [Level.WARNS]


# --- connectors ---


@pytest.mark.parametrize("kv", [None, transfer("OffloadingConnector"), multi(transfer("OffloadingConnector"))])
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_server_without_a_connector_that_transfers_stops_a_run(role: str, kv: Mapping[str, Any] | None) -> None:
    both = pair({"kv": kv} if role == "prefill" else {}, {"kv": kv} if role == "decode" else {})
    assert f"{role}-0" in stops(check_connectors(both, transfers=True))
    assert Level.STOPS not in levels(check_connectors(both, transfers=False))


def test_unknown_connectors_may_transfer() -> None:
    both = pair({"kv": transfer("TheirConnector")}, {"kv": multi(transfer("TheirConnector"))})
    assert levels(check_connectors(both, transfers=True)) == [Level.OK]


def test_servers_that_report_nothing_do_not_stop_a_run() -> None:
    silent_pair = [silent(P), silent(D)]
    items = [
        *check_distinct(silent_pair, "http://proxy:8000", {}),
        *check_model(silent_pair, "canary"),
        *check_connectors(silent_pair, transfers=True),
        *check_kv_format(silent_pair),
        *check_generation_defaults(silent_pair, None, 20),
    ]
    refuse(items)
    assert Level.UNREPORTED in levels(items)


def test_swapped_roles_stop_a_run() -> None:
    swapped = pair({"kv": transfer(role="kv_consumer")}, {"kv": multi(transfer(role="kv_producer"))})
    message = stops(check_connectors(swapped, transfers=True))
    assert "prefill-0 at http://p:8100 is configured as kv_consumer" in message
    assert "decode-0 at http://d:8200 is configured as kv_producer" in message
    right = pair({"kv": transfer(role="kv_producer")}, {"kv": transfer(role="kv_consumer")})
    assert levels(check_connectors(right, transfers=True)) == [Level.OK]


def test_different_lists_of_connectors_are_a_warning() -> None:
    both = pair({"kv": multi(transfer(), transfer("OffloadingConnector"))}, {})
    assert levels(check_connectors(both, transfers=True)) == [Level.WARNS]


# --- format of the KV cache ---


@pytest.mark.parametrize(
    ("other", "word"), [({"dtype": "torch.float32"}, "dtype"), ({"cache": {"cache_dtype": "fp8"}}, "KV cache dtype")]
)
def test_servers_with_different_dtypes_stop_a_run(other: Mapping[str, Any], word: str) -> None:
    assert f"differ in {word}" in stops(check_kv_format(pair({}, other)))


@pytest.mark.parametrize(("p", "d", "fit"), [(32, 64, True), (64, 32, True), (48, 32, False)])
def test_block_sizes_and_ranks_must_divide_each_other(p: int, d: int, *, fit: bool) -> None:
    sizes = [silent(replace(P, block_size=p)), silent(replace(D, block_size=d))]
    ranks = pair({"parallel_config": {"tensor_parallel_size": p}}, {"parallel_config": {"tensor_parallel_size": d}})
    for both in (sizes, ranks):
        assert (Level.STOPS not in levels(check_kv_format(both))) is fit


# --- load ---


def test_a_load_beyond_the_context_is_reported_with_its_line() -> None:
    long = Demand("load.jsonl, line 7", 390, 11)
    assert "load.jsonl, line 7" in stops(check_demands(DEPLOYMENT, [Demand("load.jsonl, line 1", 5, 5), long], None))
    assert levels(check_demands(DEPLOYMENT, [Demand("line 7", 390, 10)], None)) == [Level.OK]
    assert "line 2" in stops(check_demands(DEPLOYMENT, [Demand("line 2", None, 400)], None)), (
        "a text needs at least one token"
    )


def test_a_token_beyond_the_vocabulary_is_reported_with_its_line() -> None:
    demand = Demand("load.jsonl, line 3", 2, 5, largest_token=100)
    assert "load.jsonl, line 3 has the token id 100" in stops(check_demands(DEPLOYMENT, [demand], 100))
    refuse(check_demands(DEPLOYMENT, [demand], 101))
    refuse(check_demands(DEPLOYMENT, [demand], None))


# --- generation defaults ---


def test_defaults_that_change_greedy_answers_are_a_warning() -> None:
    penalty = {"model_config": {"override_generation_config": {"repetition_penalty": 1.1, "temperature": 0.6}}}
    (item,) = check_generation_defaults(pair({}, penalty), {}, 20)
    assert (item.level, "repetition_penalty=1.1" in item.seen, "temperature" in item.seen) == (Level.WARNS, True, False)


def test_the_models_own_defaults_count_if_the_server_uses_them() -> None:
    file = {"repetition_penalty": 1.05, "top_k": 20}
    assert levels(check_generation_defaults(pair({}, {}), file, 20)) == [Level.WARNS, Level.WARNS]
    neutral = {"model_config": {"generation_config": "vllm"}}
    assert levels(check_generation_defaults(pair(neutral, neutral), file, 20)) == [Level.OK]


def test_a_server_that_limits_answers_below_the_loads_length_stops_a_run() -> None:
    short = {"model_config": {"override_generation_config": {"max_new_tokens": 8}}}
    assert "limits answers to 8 tokens" in stops(check_generation_defaults(pair({}, short), {}, 20))
    refuse(check_generation_defaults(pair({}, short), {}, 8))


# --- the first requests ---


def counted(**grown: float) -> Delta:
    return Delta({"prompt_tokens": 0, "external_kv_transfer": 0, **grown}, {})


def through(p: Delta | None, d: Delta | None) -> list[Item]:
    return list(check_proxy_servers("http://proxy:8000", (P, D), (p, d), requests=8, tokens=70))


def test_a_proxy_that_asks_the_listed_servers_is_ok() -> None:
    right = through(counted(prompt_tokens=560), counted(prompt_tokens=560, external_kv_transfer=552))
    assert levels(right) == [Level.OK]
    # Whether KV is transferred is a matter of the run's verdict.
    assert levels(through(counted(), counted(prompt_tokens=560))) == [Level.WARNS]


@pytest.mark.parametrize(
    ("p", "d", "words"),
    [
        (counted(), counted(), "asks none of the listed servers"),
        (counted(prompt_tokens=560), counted(prompt_tokens=280), "4 of 8 requests never arrived"),
        (counted(prompt_tokens=560, external_kv_transfer=560), counted(prompt_tokens=560), "Swap --prefill-url"),
        (counted(prompt_tokens=210), counted(prompt_tokens=560, external_kv_transfer=560), "5 of 8 prompts never"),
    ],
)
def test_a_proxy_that_asks_other_servers_stops_a_run(p: Delta, d: Delta, words: str) -> None:
    assert words in stops(through(p, d))


def test_unreadable_counters_leave_the_proxys_servers_unknown() -> None:
    assert levels(through(None, counted())) == [Level.UNKNOWN]


def test_counters_reveal_a_decode_server_without_a_connector() -> None:
    none = Delta({"external_kv_transfer": 0}, {"nixl_bytes": "no such family"})
    assert "has no connector" in stops(check_first_transfers((D,), [none]))
    # A server with a connector that lost the transfer is a matter of the run's verdict.
    assert levels(check_first_transfers((D,), [Delta({"external_kv_transfer": 0, "nixl_bytes": 0}, {})])) == [
        Level.WARNS
    ]
    assert levels(check_first_transfers((D,), [Delta({"external_kv_transfer": 70}, {})])) == [Level.OK]


def moved(layers: float, *, reads: int = 1, model: str | None = "/here") -> list[Item]:
    """The items if a transfer moved ``layers`` of four layers, in the three blocks that 70 tokens fill."""
    per_layer = 3 * 32 * 2 * 64 * 2
    seen = Delta({"nixl_bytes": layers * per_layer, "nixl_transfers": reads}, {})
    return list(check_transfer_bytes(DEPLOYMENT, [seen], tokens=70, model=model))


def test_bytes_reveal_the_configuration_of_another_model() -> None:
    assert not moved(4)
    assert "1.5 times" in stops(moved(6))
    assert levels(moved(6, model=None)) == [Level.UNKNOWN]
    assert levels(moved(3)) == [Level.UNKNOWN]
    assert levels(moved(2)) == [Level.UNKNOWN]
    assert not moved(3.9), "a transfer that lost a part is a matter of the verdict"
    assert not moved(6, reads=2), "these include reads of other clients"


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_region_read_beyond_its_end_does_not_mean_another_model(blocks: int) -> None:
    # The bytes of one or two blocks more than the prompt's three, as if there were 16/3 or 20/3 layers.
    (item,) = moved(4 * (3 + blocks) / 3)
    assert item.level is Level.UNKNOWN
    assert "bytes are not judged" in item.seen


# --- unexpected formats ---


@pytest.mark.parametrize(
    "answer",
    [{}, {"vllm_config": None}, {"vllm_config": {"kv_transfer_config": [1], "model_config": 3, "cache_config": "x"}}],
)
def test_an_answer_in_another_format_reports_nothing(answer: dict[str, Any]) -> None:
    models = json.loads('{"data": [1, {"id": 5, "root": 7}, {"x": 1}]}')
    one = report_of(P, Answers(models=models, info=answer, metrics="{not an exposition", status={"prefill": 1}))
    assert (one.connectors, one.kv_dtype, one.is_proxy, one.models) == (None, None, False, {"5": None})
