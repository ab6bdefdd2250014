"""Advice on checks that are unknown because of a reading names the reading's problem and its server."""

from collections.abc import Mapping
from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge
from harness.history import Scraped
from harness.verdict import Check, Verdict

NAN = float("nan")


def judged(*, attached: bool = False, **readings: Mapping[str, float] | Scraped) -> dict[str, Check]:
    """The checks of a clean run with other readings after the load: ``decode={...}``."""
    before, after = run.readings()[:2], run.readings()[2:]
    made = [_after(one, readings.get(str(one.server).partition("-")[0])) for one in after]
    deployment = replace(run.DEPLOYMENT, launched=not attached)
    return {check.name: check for check in judge(deployment, run.history([*before, *made])).checks}


def _after(clean: Scraped, wanted: Mapping[str, float] | Scraped | None) -> Scraped:
    if wanted is None or isinstance(wanted, Scraped):
        return wanted or clean
    return run.reading(clean.server, "after", wanted)


def cause(check: Check) -> str:
    assert check.advice is not None
    return check.advice.cause


def test_a_restart_is_named() -> None:
    checks = judged(decode=run.DECODE | {"started": 1.8e9})
    assert checks["token_sources"].verdict is Verdict.UNKNOWN
    assert "decode-0 was restarted during the run" in cause(checks["token_sources"])


def test_impossible_gauges_are_named_with_their_server() -> None:
    unrest = {"settled": False, "unsettled_because": "the gauges of decode-0"}
    decode = run.reading("decode-0", "after", run.DECODE | {"running": NAN}, **unrest)
    checks = judged(decode=decode, prefill=run.reading("prefill-0", "after", run.PREFILL, **unrest))
    for name in ("settled", "token_sources"):
        assert checks[name].verdict is Verdict.UNKNOWN
        assert "/metrics of decode-0 lacks the gauges" in cause(checks[name])


def test_the_busy_server_is_named_as_not_settled() -> None:
    unrest = {"settled": False, "unsettled_because": "still running"}
    decode = run.reading("decode-0", "after", run.DECODE | {"running": 1}, **unrest)
    prefill = run.reading("prefill-0", "after", run.PREFILL, **unrest)
    assert "decode-0 did not settle" in cause(judged(decode=decode, prefill=prefill)["token_sources"])


def test_a_missing_counter_is_named_with_its_server() -> None:
    decode = {name: value for name, value in run.DECODE.items() if name != "external"}
    checks = judged(decode=decode)
    assert checks["token_sources"].verdict is Verdict.UNKNOWN
    assert "/metrics of decode-0 lacks a counter" in cause(checks["token_sources"])


def test_a_counter_missing_because_of_an_unknown_connector_names_the_connector() -> None:
    deployment = run.DEPLOYMENT.with_servers(connectors=(), unknown_connectors=("OtherConnector",))
    decode = {name: value for name, value in run.DECODE.items() if not name.startswith(("nixl", "failed"))}
    readings = [*run.readings()[:3], run.reading("decode-0", "after", decode)]
    for check in judge(deployment, run.history(readings)).checks:
        if check.name in ("nixl_bytes", "failed_transfers"):
            assert check.verdict is Verdict.UNKNOWN
            assert "does not know the connector OtherConnector" in cause(check)


@pytest.mark.parametrize("stored", [True, False])
def test_twice_the_bytes_do_not_mean_another_model_if_the_tiers_bytes_are_right(stored: bool) -> None:
    """The tier's bytes are predicted from the same configuration."""
    twice = run.DECODE | {"nixl": 2 * run.DECODE["nixl"]}
    if stored:
        assert "or twice" in cause(judged(decode=twice)["nixl_bytes"])
        return
    none = {"store": 0, "store_legacy": 0}
    checks = judged(decode=twice | none, prefill=run.PREFILL | none)
    assert "exactly 2/1" in cause(checks["nixl_bytes"])


def test_wrong_bytes_beside_wrong_token_sources_do_not_mean_another_model() -> None:
    half = run.DECODE | {"external": 100, "external_hits": 100, "compute": 128, "nixl": 2 * run.BLOCK}
    checks = judged(decode=half)
    assert checks["token_sources"].verdict is checks["nixl_bytes"].verdict is Verdict.INVALID
    assert cause(checks["nixl_bytes"]) == "the same as for token_sources"


def test_advice_on_unpredictable_bytes_fits_a_model_that_was_given() -> None:
    unlike = replace(run.DEPLOYMENT, geometry=None, geometry_unknown="the first transfers moved twice as many bytes")
    checks = {check.name: check for check in judge(unlike, run.history()).checks}
    assert checks["nixl_bytes"].advice is not None
    assert "give the served model" in checks["nixl_bytes"].advice.remedy
    assert "--kv-cache-dtype" in checks["nixl_bytes"].advice.remedy


def test_sources_that_do_not_add_up_are_called_a_contradiction_of_the_engine() -> None:
    twice = judged(decode=run.DECODE | {"external": 456})["token_sources"]
    assert twice.verdict is Verdict.INVALID
    assert "the engine's own counters contradict each other" in cause(twice)
    assert "another path" in cause(judged(decode=run.DECODE | {"external": 128, "compute": 100})["token_sources"])
