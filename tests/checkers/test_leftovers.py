"""If salts are not kept apart, differences that blocks of an earlier run explain are unknown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from counted_run import BLOCK, DECODE, DEPLOYMENT, PREFILL, ZERO, operation, reading, readings, request
from sim_history import SimRun

from harness.checkers import judge
from harness.facts import Deployment
from harness.history import Entry, History
from harness.scenario import Condition, Purpose, Request, Sampling
from harness.sim import SimConfig, SimPair
from harness.verdict import Check, Verdict
from harness.verify.asking.salt_test import salt_test
from harness.verify.judging.salted_path import dropped_on_the_way
from harness.verify.judging.salts import salts

SMALL = DEPLOYMENT.with_servers(block_size=16, offload_block_size=16)


class DroppingGateway(SimRun):
    """Drops the salts of requests through the proxy."""

    def _through(self, bodies: dict[str, Any]) -> dict[str, tuple[int, Any]]:
        return super()._through({name: body | {"cache_salt": None} for name, body in bodies.items()})


def asked_under_two_salts(kind: type[SimRun], deployment: Deployment = SMALL, **fields: Any) -> History:
    run = kind(SimPair(SimConfig(**fields), lambda: 0.0))
    for scenario in salt_test(deployment, lambda: run.history, salt="test"):
        run.run(scenario)
    return run.history


def test_a_gateway_that_drops_salts_is_found_although_the_servers_keep_them() -> None:
    history = asked_under_two_salts(DroppingGateway)
    assert dropped_on_the_way(SMALL, history) == {"prefill-0": 64, "decode-0": 64}
    check = salts(SMALL, history)
    assert check.verdict is Verdict.VALID
    assert any("between the clients and prefill-0 and decode-0 drops cache_salt" in note for note in check.notes)


def test_a_gateway_that_keeps_salts_is_not_blamed() -> None:
    history = asked_under_two_salts(SimRun)
    assert dropped_on_the_way(SMALL, history) == {}
    assert salts(SMALL, history).notes == ()


def test_without_a_proxy_the_path_through_it_is_not_tested() -> None:
    alone = replace(SMALL, proxy_url=None)
    assert len(asked_under_two_salts(SimRun).operations()) == len(asked_under_two_salts(SimRun, alone).operations()) + 2


def way(prefill: float, decode: float) -> list[Entry]:
    """The salt test through the proxy, with the tokens of 100 that each server found in its cache."""
    asked = Request(
        "salts-path-other-0",
        tuple(range(3000, 3100)),
        Sampling(max_tokens=1),
        cache_salt="b",
        purpose=Purpose.SALT_TEST,
        condition=Condition.SALT_PROXY_OTHER,
    )
    sent, ended = operation(asked)
    phase = "salts-path-other"
    grown = {"prefill-0": prefill, "decode-0": decode}
    around = [
        replace(reading(name, f"watched-{when}", values), phase=phase)
        for name, hit in grown.items()
        for when, values in (("before", ZERO), ("after", ZERO | {"prompt": 100, "hit": hit, "compute": 100 - hit}))
    ]
    return [*around, replace(sent, phase=phase, at=-2.0), replace(ended, at=-1.0)]


def checked(
    way: list[Entry], prefill: Mapping[str, float] = PREFILL, decode: Mapping[str, float] = DECODE
) -> dict[str, Check]:
    load = [entry for index in (0, 1) for entry in operation(request(index, cache_salt="a"))]
    judgement = judge(DEPLOYMENT, History((*way, *readings(prefill, decode), *load)))
    return {check.name: check for check in judgement.checks}


FOUND = PREFILL | {"compute": 100, "hit": 128, "prefix_hits": 128, "external_queries": 100}
FOUND |= {"store": BLOCK, "store_legacy": BLOCK}
"""Counters as if prefill had the second prompt's blocks in its cache."""


def test_additional_hits_are_unknown_if_salts_are_dropped() -> None:
    found = checked(way(64, 0), FOUND)
    assert {found[name].verdict for name in ("token_sources", "offload_bytes")} == {Verdict.UNKNOWN}
    assert "an earlier run with the same prompts" in found["token_sources"].summary
    advice = found["token_sources"].advice
    assert advice is not None
    assert "--seed" in advice.remedy


@pytest.mark.parametrize("way", [way(0, 0), way(0, 64), []], ids=["kept", "dropped for decode alone", "not tested"])
def test_additional_hits_are_invalid_if_salts_are_kept(way: list[Entry]) -> None:
    assert checked(way, FOUND)["token_sources"].verdict is Verdict.INVALID


def test_a_right_run_is_valid_although_salts_are_dropped() -> None:
    found = checked(way(64, 64))
    for name in ("token_sources", "nixl_bytes", "offload_bytes"):
        assert found[name].verdict is Verdict.VALID, found[name]


def test_differences_that_no_cache_explains_are_invalid() -> None:
    computed = DECODE | {"compute": 228, "external": 0, "external_hits": 0, "nixl": 0, "reads": 0}
    assert checked(way(64, 64), decode=computed)["token_sources"].verdict is Verdict.INVALID
