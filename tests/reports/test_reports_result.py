"""result.json and JUnit XML."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, INVALID, STARTED, UNKNOWN, VALID, compared, entries

from harness.facts import Role, Server
from harness.history import History, Sent
from harness.reports import LoadSettings, make_report
from harness.reports.files.junit import junit_xml
from harness.scenario import Route
from harness.verdict import Bounds, Check, Finding, Judgement, Outputs, Verdict

STATISTICS = {
    f"{statistic}_{metric}_ms"
    for statistic in ("mean", "median", "std", "p99")
    for metric in ("ttft", "tpot", "itl", "e2el")
}

# What `vllm bench serve --save-result` of vLLM 0.32.0 writes (vllm/benchmarks/serve.py), --save-detailed apart.
VLLM = STATISTICS | {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts"),
    *("request_rate", "burstiness", "max_concurrency"),
    *("duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("latencies", "queue_times", "max_output_tokens_per_s", "max_concurrent_requests", "rtfx"),
    *(f"{statistic}_client_queue_time_ms" for statistic in ("mean", "median", "std", "p99")),
}
VLLM_DETAILED = {"input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"}

# Not written: arrays that vLLM writes without --save-detailed, speech,
# and the client's queue, whose time is inside our latencies (they count from when a request was due).
LEFT_OUT = {key for key in VLLM if "queue_time" in key} | {*("latencies", "rtfx")}
OURS = {
    "format",
    "latency_histograms_us",
    "latency_shares_ms",
    "latency_intervals_ms",
    "steady_state",
    *("verdict", "checks", "kv_transfer", "outputs", "verification_cost", "deployment", "seed", "argv", "commit"),
    *("harness_version", "scenarios", "interrupted", "faults"),
    *(f"{statistic}_{metric}_ms" for statistic in ("p50", "p90") for metric in ("ttft", "tpot", "itl", "e2el")),
    *(
        f"{statistic}_{metric}_from_send_ms"
        for statistic in ("mean", "median", "std", "p50", "p90", "p99")
        for metric in ("ttft", "e2el")
    ),
}


def test_keys_are_vllms_and_ours() -> None:
    result = make_report(DEPLOYMENT, HISTORY, VALID).result
    assert set(result) == (VLLM - LEFT_OUT) | OURS


def test_detailed_adds_vllms_arrays_with_an_entry_for_each_request() -> None:
    plain = make_report(DEPLOYMENT, HISTORY, VALID).result
    detailed = make_report(DEPLOYMENT, HISTORY, VALID, load=LoadSettings(2, detailed=True)).result
    assert set(detailed) - set(plain) == VLLM_DETAILED | {"latencies"}
    assert {len(detailed[key]) for key in VLLM_DETAILED} == {2}
    assert detailed["ttfts"] == pytest.approx([0.2, 0.0])
    assert detailed["itls"] == [pytest.approx([0.1, 0.2]), []]
    assert detailed["errors"] == ["", "500: engine died"]
    assert (detailed["input_lens"], detailed["output_lens"]) == ([4, 0], [3, 0])


@pytest.mark.parametrize(("route", "of"), [(Route.PREFILL, "load-0"), (Route.PROXY, "load-0"), (Route.DECODE, None)])
def test_only_the_path_under_test_is_measured(route: Route, of: str | None) -> None:
    sent = [replace(e, request=replace(e.request, route=route, about=of)) for e in HISTORY.of(Sent) if e.request.about]
    others = tuple(e for e in HISTORY.entries if not (isinstance(e, Sent) and e.request.about))
    result = make_report(DEPLOYMENT, History((*others, *sent)), VALID).result
    assert (result["num_prompts"], result["completed"], result["failed"]) == (2, 1, 1)
    assert result["mean_ttft_ms"] == pytest.approx(200)


def test_setup_has_vllms_keys() -> None:
    load = LoadSettings(2, 32, label="nightly", metadata={"pod": "a", "verdict": "mine"})
    result = make_report(DEPLOYMENT, HISTORY, INVALID, load=load).result
    assert (result["date"], result["request_rate"], result["burstiness"]) == ("20260102-030405", "inf", 1.0)
    assert (result["max_concurrency"], result["label"], result["tokenizer_id"]) == (32, "nightly", "canary")
    assert (result["pod"], result["verdict"]) == ("a", "invalid")
    assert make_report(DEPLOYMENT, HISTORY, VALID, load=LoadSettings(2, request_rate=4.0)).result["request_rate"] == 4


def test_kv_transfer_of_a_run_that_transferred() -> None:
    kv = make_report(DEPLOYMENT, HISTORY, VALID).result["kv_transfer"]
    none = {"observed": None, "expected": None}
    assert kv == {
        "prefill": {"local_compute": 26913, "local_cache_hit": None, "external_kv_transfer": None},
        "decode": {"local_compute": 0, "local_cache_hit": None, "external_kv_transfer": 26913},
        "expected": {
            "prefill": {"local_compute": 26913, "local_cache_hit": None, "external_kv_transfer": None},
            "decode": {"local_compute": 0, "local_cache_hit": None, "external_kv_transfer": 26913},
        },
        "nixl_bytes": {"observed": 238551040, "expected": 238551040},
        "offload_bytes": {"load": none, "store": none},
        "failed_transfers": None,
        "expired_requests": None,
    }


def test_kv_transfer_adds_up_bounds_and_is_null_where_a_part_is_unknown() -> None:
    parts = (
        compared("decode-0", "local_compute", Bounds(1, 3), 2.0),
        compared("decode-1", "local_compute", 4, 4.0),
        compared("prefill", "local_compute", 5, 5.0),
        compared("prefill-0", "nixl_expired", 0, 1.0),
        compared("decode-0", "nixl_failed_transfers", 0, 2.0),
        compared("decode-1", "nixl_failed_transfers", 0, None),
    )
    two_decode = replace(DEPLOYMENT, servers=(*DEPLOYMENT.servers, Server("decode-1", Role.DECODE, "http://d1")))
    judgement = Judgement((Check("c", Verdict.INVALID, "", parts),), VALID.outputs)
    kv = make_report(two_decode, HISTORY, judgement).result["kv_transfer"]
    assert kv["expected"]["decode"]["local_compute"] == {"min": 5, "max": 7}
    assert (kv["decode"]["local_compute"], kv["prefill"]["local_compute"]) == (6, 5)
    assert (kv["expired_requests"], kv["failed_transfers"]) == (1, None)


def test_checks_carry_their_evidence() -> None:
    result = make_report(DEPLOYMENT, HISTORY, INVALID).result
    check = next(check for check in result["checks"] if check["name"] == "token_sources")
    assert check["comparisons"][0] == {
        "scenario": "random_load",
        "phase": "load",
        "server": "decode-0",
        "counter": "external_kv_transfer",
        "expected": 26913,
        "observed": 0,
        "verdict": "invalid",
        "why_unknown": "",
    }
    assert check["findings_total"] == len(check["findings"]) == 5
    assert result["outputs"] == {
        "requests": 128, "exact": 128, "tie": 0, "mismatch": 0, "unverified": 0, "noise_floor": {},
    }  # fmt: skip


def test_the_result_is_strict_json_without_credentials() -> None:
    nan = Judgement(
        (Check("c", Verdict.INVALID, "", (compared("decode-0", "x", 1, math.nan),)),), Outputs(0, 0, 0, 0, 0)
    )
    for judgement in (VALID, INVALID, UNKNOWN, nan):
        text = json.dumps(make_report(DEPLOYMENT, HISTORY, judgement).result, allow_nan=False)
        assert "sesame" not in text


def test_facts_of_servers_that_differ_are_listed_by_server() -> None:
    prefill, decode = DEPLOYMENT.servers
    mixed = replace(DEPLOYMENT, servers=(prefill, replace(decode, block_size=64)))
    assert make_report(mixed, HISTORY, VALID).result["deployment"]["block_size"] == {"prefill-0": 32, "decode-0": 64}
    assert make_report(DEPLOYMENT, HISTORY, VALID).result["deployment"]["block_size"] == 32


def _cases(judgement: Judgement, history: History = HISTORY) -> dict[tuple[str, str], list[str]]:
    root = ET.fromstring(junit_xml(history, judgement))  # noqa: S314 - our own XML
    return {
        (str(case.get("classname")), str(case.get("name"))): [child.tag for child in case]
        for case in root.iter("testcase")
    }


def test_invalid_is_a_junit_failure_and_unknown_an_error() -> None:
    assert _cases(INVALID) == {
        ("pd-harness.random_load", "outputs"): [],
        ("pd-harness.random_load", "offload_bytes"): ["error"],
        ("pd-harness.random_load", "token_sources"): ["failure"],
    }
    xml = junit_xml(HISTORY, INVALID)
    assert 'tests="3" failures="1" errors="1"' in xml
    assert 'message="unknown: offload_store_bytes' in xml
    assert "load external" not in xml
    assert "load: decode-0 external_kv_transfer: expected 26,913, observed 0 (-26,913)" in xml


def test_junit_of_nothing_is_an_error() -> None:
    assert _cases(Judgement((), UNKNOWN.outputs)) == {("pd-harness.random_load", "any"): ["error"]}


def test_a_check_counts_in_junit_for_the_scenarios_of_its_evidence_else_for_all() -> None:
    two = History((replace(STARTED, scenarios=("random_load", "other")), *entries()[1:]))
    named = Judgement(
        (Check("c", Verdict.INVALID, "!", findings=(Finding("load-0", "wrong", request="load-0"),)),), VALID.outputs
    )
    assert _cases(named, two) == {("pd-harness.random_load", "c"): ["failure"], ("pd-harness.other", "c"): []}
    assert _cases(INVALID, two)["pd-harness.random_load", "offload_bytes"] == ["error"]
    assert _cases(INVALID, two)["pd-harness.other", "offload_bytes"] == []
    vague = Judgement((Check("health", Verdict.UNKNOWN, "?", findings=(Finding("client", "late"),)),), VALID.outputs)
    assert set(map(tuple, _cases(vague, two).values())) == {("error",)}


def test_junit_survives_characters_that_xml_forbids() -> None:
    nasty = Judgement((Check("c", Verdict.INVALID, "a\x1b[31m\x00<b>&", (), ()),), VALID.outputs)
    assert _cases(nasty) == {("pd-harness.random_load", "c"): ["failure"]}
