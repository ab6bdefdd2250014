"""A connector that the harness does not know is found by name; only what depends on it is unknown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import counted_run as run
import pytest
from oracle_runs import NIXL, OFFLOADING, Script, deployed, exactly, prompt
from workload_settings import deployment as catalogue_deployment

from harness.catalogue.needs import Needs, unmet
from harness.checkers import judge
from harness.checkers.failed_transfers import failed_transfers
from harness.deploy.engine import EngineBuild
from harness.deploy.plan import Engine, kv_transfer_config
from harness.deploy.plugin_path import PACKAGE
from harness.deploy.target import Target
from harness.facts import Connector, Deployment
from harness.observe.connectors import Connected, read_connectors
from harness.oracle import ServerExpectation
from harness.scenario import Route, Sampling
from harness.verdict import Verdict

BROUGHT = {"external_kv_transfer", "external_hits", "local_compute"}
NIXL_COUNTERS = {"nixl_bytes", "nixl_transfers"}
TIER_COUNTERS = {"offload_load_bytes", "offload_store_bytes"}
ALWAYS = ("prompt_tokens", "local_cache_hit", "prefix_queries", "prefix_hits", "external_queries")


def of(name: object, extra: object = None, module: object = None) -> dict[str, Any]:
    config = {"kv_connector": name, "kv_connector_extra_config": extra, "kv_connector_module_path": module}
    return {key: value for key, value in config.items() if value is not None}


def multi(*children: object) -> dict[str, Any]:
    return of("MultiConnector", {"connectors": list(children)})


@pytest.mark.parametrize(
    ("transfer", "known", "unknown", "before"),
    [
        (multi(of("NixlConnector"), of("LMCacheConnectorV1")), (NIXL,), ("LMCacheConnectorV1",), 1),
        (multi(of("LMCacheConnectorV1"), of("NixlConnector")), (NIXL,), ("LMCacheConnectorV1",), 0),
        (multi(of("NixlPushConnector"), of("OffloadingConnector")), (OFFLOADING,), ("NixlPushConnector",), 0),
        (of("ExampleConnector"), (), ("ExampleConnector",), 0),
        (of("nixlconnector"), (), ("nixlconnector",), 0),
        (of("MyMultiConnector", {"connectors": [of("NixlConnector")]}), (), ("MyMultiConnector",), 0),
        (of("NixlConnector", module="mine.fast"), (), ("NixlConnector of mine.fast",), 0),
        (of("NixlConnector", module="vllm.distributed.kv_transfer"), (NIXL,), (), 0),
        (of("NixlPullConnector"), (NIXL,), (), 0),
        (multi(multi(of("OffloadingConnector")), multi(of("A"), of("NixlConnector"))), (OFFLOADING, NIXL), ("A",), 1),
        (multi(), (), (), 0),
        (None, (), (), 0),
    ],
)
def test_every_connector_of_the_list_is_kept(
    transfer: object, known: tuple[Connector, ...], unknown: tuple[str, ...], before: int
) -> None:
    found = read_connectors(transfer)
    assert found is not None
    assert (found.known, found.unknown, found.before_unknown, found.listed) == (known, unknown, before, True)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"spec_name": "TieringOffloadingSpec"}, "OffloadingConnector with TieringOffloadingSpec"),
        ({"spec_name": "Mine", "spec_module_path": "mine"}, "OffloadingConnector with Mine"),
        ({"spec_name": "HostOffloadingSpec", "spec_module_path": "x"}, "OffloadingConnector with HostOffloadingSpec"),
        ({"eviction_policy": "arc"}, "OffloadingConnector with eviction policy arc"),
        ({"store_threshold": 2}, "OffloadingConnector with store threshold 2"),
    ],
)
def test_a_tier_with_other_rules_is_not_the_known_one(extra: dict[str, Any], name: str) -> None:
    found = read_connectors(of("OffloadingConnector", extra))
    assert found is not None
    assert (found.known, found.unknown) == ((), (name,))


@pytest.mark.parametrize(
    "extra",
    [
        {"cpu_bytes_to_use": 1, "eviction_policy": "lru", "store_threshold": 0},
        {"spec_name": "CPUOffloadingSpec"},
        {"spec_name": "HostOffloadingSpec", "spec_module_path": f"{PACKAGE}.cpu_offload"},
    ],
)
def test_the_known_tier_is_recognized_in_any_spelling(extra: dict[str, Any]) -> None:
    found = read_connectors(of("OffloadingConnector", extra))
    assert found is not None
    assert (found.known, found.unknown) == ((OFFLOADING,), ())


@pytest.mark.parametrize(
    "transfer",
    [[], "NixlConnector", 3, of(7), of("MultiConnector"), multi(of("NixlConnector"), "NixlConnector"), multi({})],
)
def test_a_list_that_cannot_be_read_is_ignored(transfer: object) -> None:
    assert read_connectors(transfer) is None


def test_a_configuration_that_is_a_string_of_json_is_read() -> None:
    extra = '{"connectors": [{"kv_connector": "NixlConnector"}, {"kv_connector": "Other"}]}'
    assert read_connectors(of("MultiConnector", extra)) == Connected(
        (NIXL,), listed=True, unknown=("Other",), before_unknown=1, nixl={}
    )


def unknown(known: tuple[Connector, ...], before: int = 0, **fields: Any) -> Deployment:
    return deployed(*known, unknown_connectors=("Other",), asked_before_unknown=before, **fields)


def left_open(expectation: ServerExpectation) -> set[str]:
    return {name for name in expectation.unpredictable if expectation.of(name) is None}


def expect(deployment: Deployment, tokens: int = 130, **fields: Any) -> dict[str, ServerExpectation]:
    script = Script(deployment)
    script.ask(prompt(tokens), **fields)
    return script.expect()


@pytest.mark.parametrize(
    ("known", "before", "prefill", "decode"),
    [
        # NIXL is asked first and loads everything that is missing: decode is fully predictable, prefill is not.
        ((NIXL,), 1, BROUGHT | TIER_COUNTERS, TIER_COUNTERS),
        ((NIXL, OFFLOADING), 2, BROUGHT, set()),
        ((NIXL, OFFLOADING), 1, BROUGHT | {"offload_load_bytes"}, set()),
        ((NIXL,), 0, BROUGHT | TIER_COUNTERS, BROUGHT | TIER_COUNTERS | NIXL_COUNTERS),
        ((OFFLOADING,), 0, BROUGHT | NIXL_COUNTERS | {"offload_load_bytes"}, None),
        ((), 0, BROUGHT | NIXL_COUNTERS | TIER_COUNTERS, None),
    ],
)
def test_counters_that_an_unknown_connector_may_change_are_unknown_and_name_it(
    known: tuple[Connector, ...], before: int, prefill: set[str], decode: set[str] | None
) -> None:
    expected = expect(unknown(known, before))
    for name, wanted in (("prefill-0", prefill), ("decode-0", prefill if decode is None else decode)):
        assert left_open(expected[name]) == wanted
        assert all(f"Other on {name} is not a connector" in expected[name].why(counter) for counter in wanted)
        assert exactly(expected[name], "prompt_tokens") == 130
        for counter in ALWAYS:
            exactly(expected[name], counter)


def test_prefix_hits_that_only_the_local_cache_decides_are_exact() -> None:
    script = Script(unknown((NIXL,)))
    for phase in ("first", "second"):
        script.ask(prompt(130), phase)
    assert [exactly(script.expect("second")[name], "prefix_hits") for name in ("prefill-0", "decode-0")] == [128, 128]


def hits_of_second(deployment: Deployment) -> tuple[int, int]:
    script = Script(deployment)
    for tokens, phase in ((prompt(130), "first"), (prompt(192, start=5000), "evicts"), (prompt(130), "second")):
        script.ask(tokens, phase)
    hits = script.expect("second")["prefill-0"].of("prefix_hits")
    assert hits is not None
    return hits.low, hits.high


def test_evictions_of_a_small_pool_are_not_predicted_beside_a_connector_that_may_hold_blocks() -> None:
    small: dict[str, Any] = {"num_blocks": 5}
    assert hits_of_second(deployed(NIXL).with_servers(**small)) == (64, 64)
    assert hits_of_second(unknown((NIXL,), 1).with_servers(**small)) == (0, 128)


def test_overlapping_requests_may_all_miss_blocks_that_an_unknown_connector_loads() -> None:
    def hits(deployment: Deployment) -> tuple[int, int]:
        script = Script(deployment)
        script.together([prompt(130)] * 3)
        found = script.expect()["prefill-0"].of("prefix_hits")
        assert found is not None
        return found.low, found.high

    assert hits(deployed(NIXL)) == (256, 256)
    assert hits(unknown((NIXL,), 1)) == (0, 384)


def test_a_request_for_which_no_connector_is_asked_is_exact() -> None:
    asked = expect(unknown((NIXL,)), route=Route.PREFILL, sampling=Sampling(prompt_logprobs=0, max_tokens=1))
    assert exactly(asked["prefill-0"], "local_compute") == 130


def test_no_checker_is_left_out() -> None:
    deployment = run.DEPLOYMENT.with_servers(connectors=(), unknown_connectors=("NixlPushConnector",))
    checks = {check.name: check for check in judge(deployment, run.history()).checks}
    assert {"nixl_bytes", "offload_bytes", "failed_transfers", "token_sources"} <= set(checks)
    for name in ("nixl_bytes", "offload_bytes", "token_sources"):
        assert checks[name].verdict is Verdict.UNKNOWN
        assert "NixlPushConnector on " in checks[name].summary


def test_failures_of_an_unknown_connector_are_unknown_and_name_it() -> None:
    silent = {name: value for name, value in run.ZERO.items() if name not in ("failed", "expired", "late")}
    prefill, decode = ({**numbers, **silent} for numbers in (run.PREFILL, run.DECODE))
    for numbers in (prefill, decode):
        for name in ("failed", "expired", "late"):
            del numbers[name]
    readings = [
        run.reading(server, label, values)
        for label, both in (("before", (silent, silent)), ("after", (prefill, decode)))
        for server, values in zip(("prefill-0", "decode-0"), both, strict=True)
    ]
    deployment = run.DEPLOYMENT.with_servers(connectors=(), unknown_connectors=("LMCacheConnectorV1",))
    check = failed_transfers(deployment, run.history(readings))
    assert check.verdict is Verdict.UNKNOWN
    assert "LMCacheConnectorV1" in check.summary


def test_an_unknown_connector_meets_a_need_for_transfer_but_not_for_an_exact_list() -> None:
    own = {"connectors": (OFFLOADING,), "unknown_connectors": ("NixlPushConnector",)}
    there = catalogue_deployment().with_servers(**own)
    assert unmet(Needs(offloads=True), there) is None
    why = unmet(Needs(connectors=(OFFLOADING,)), there)
    assert why is not None
    assert "[NixlPushConnector, offloading]" in why


class TestFoundByFamilies:
    """A server that does not list its connectors has at least those with counters, in unknown order."""

    deployment = deployed(NIXL, OFFLOADING, connectors_listed=False)

    def test_a_cold_prompt_is_transferred_by_nixl_in_either_order(self) -> None:
        assert exactly(expect(self.deployment)["decode-0"], "external_kv_transfer") == 130

    def test_counters_that_depend_on_the_order_have_bounds_for_both_orders(self) -> None:
        script = Script(replace(self.deployment, servers=self.deployment.with_servers(num_blocks=4).servers))
        script.ask(prompt(130), "first")
        script.ask(prompt(192, start=5000), "evicts")
        script.ask(prompt(130), "second")
        bounds = script.expect("second")["decode-0"].of("nixl_bytes")
        assert bounds is not None
        assert bounds.low == 0 < bounds.high

    def test_more_loaded_tokens_than_the_known_connectors_explain_are_unknown(self) -> None:
        more = run.PREFILL | {"external": 64, "compute": 164, "external_hits": 64}
        listed = {
            known: judge(run.DEPLOYMENT.with_servers(connectors_listed=known), run.history(run.readings(prefill=more)))
            for known in (True, False)
        }
        (strict,) = (check for check in listed[True].checks if check.name == "token_sources")
        (lenient,) = (check for check in listed[False].checks if check.name == "token_sources")
        assert (strict.verdict, lenient.verdict) == (Verdict.INVALID, Verdict.UNKNOWN)
        assert "VLLM_SERVER_DEV_MODE=1" in lenient.summary

    def test_missing_transfers_are_invalid(self) -> None:
        silent = run.DECODE | {"external": 0, "compute": 228, "external_hits": 0, "nixl": 0, "reads": 0}
        judged = judge(run.DEPLOYMENT.with_servers(connectors_listed=False), run.history(run.readings(decode=silent)))
        assert judged.verdict is Verdict.INVALID


@pytest.mark.parametrize("connectors", [(NIXL,), (OFFLOADING,), (NIXL, OFFLOADING), (OFFLOADING, NIXL)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_launched_connectors_are_known(connectors: tuple[Connector, ...], device: str) -> None:
    engine = Engine(EngineBuild("python", "0.32.0", device), Path("plugins") if device == "cpu" else None)
    found = read_connectors(kv_transfer_config(Target(connectors=connectors), engine))
    assert found is not None
    assert (found.known, found.unknown) == (connectors, ())
