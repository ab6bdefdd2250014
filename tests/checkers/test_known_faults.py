"""A known fault of an engine is excused in the releases and on the devices where it was seen, and only there."""

from dataclasses import replace

import pytest
from run_fixtures import DEPLOYMENT

from harness.catalogue.choice import catalogue
from harness.facts import Deployment, Role
from harness.verdict import (
    Bounds,
    Check,
    Comparison,
    FaultSign,
    Finding,
    FindingKind,
    Judgement,
    KnownFault,
    Outputs,
    Verdict,
)

THREE = Outputs(requests=3, exact=3)
COUNTED = KnownFault(
    (FaultSign("failed_transfers", ("nixl_after_expiry",), Role.PREFILL, most_per_request=2),),
    ("0.32.0",),
    ("cpu",),
    "late notifications",
)
WRONG = KnownFault((FaultSign("outputs", findings=FindingKind.WRONG_OUTPUT),), ("0.32.0",), ("cpu",), "wrong answers")


def late(observed: float | None, server: str = "prefill-0", counter: str = "nixl_after_expiry") -> Judgement:
    comparison = Comparison("several_choices", "ask", server, counter, Bounds(0, 0), observed)
    return Judgement((Check("failed_transfers", comparison.verdict, "6 late", (comparison,)),), THREE)


def differing(kind: FindingKind = FindingKind.WRONG_OUTPUT, unverified: int = 0) -> Judgement:
    findings = (Finding("load-0", "wrong", FindingKind.WRONG_OUTPUT), Finding("load-1", "wrong", kind))
    counts = replace(THREE, exact=1 - unverified, mismatch=2, unverified=unverified)
    return Judgement((Check("outputs", Verdict.INVALID, "2 differ", findings=findings),), counts)


def of(version: str | None = "0.32.0", device: str | None = "cpu") -> Deployment:
    return replace(DEPLOYMENT.with_servers(version=version), device=device)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu"])
def test_a_fault_is_excused_in_its_releases_and_on_its_devices(version: str) -> None:
    assert COUNTED.excuses(late(6), of(version))
    assert WRONG.excuses(differing(), of(version))


@pytest.mark.parametrize("version", ["0.32.1", "0.33.0", "0.1.dev123", "", None])
def test_another_release_is_not_excused(version: str | None) -> None:
    assert not COUNTED.excuses(late(6), of(version))
    assert not WRONG.excuses(differing(), of(version))


@pytest.mark.parametrize("device", ["cuda", None])
def test_another_device_is_not_excused(device: str | None) -> None:
    assert not COUNTED.excuses(late(6), of(device=device))


def test_one_server_of_another_release_prevents_the_excuse() -> None:
    first, *others = of().servers
    assert not COUNTED.excuses(late(6), replace(of(), servers=(replace(first, version="0.33.0"), *others)))


def test_a_larger_excess_than_was_seen_is_not_excused() -> None:
    assert not COUNTED.excuses(late(7), of())


def test_another_counter_or_server_of_the_same_check_is_not_excused() -> None:
    assert not COUNTED.excuses(late(6, counter="nixl_failed_transfers"), of())
    assert not COUNTED.excuses(late(6, server="decode-0"), of())
    assert not COUNTED.excuses(late(6, server="decode"), of())


def test_a_leak_among_wrong_answers_is_not_excused() -> None:
    assert not WRONG.excuses(differing(FindingKind.LEAK), of())
    assert not WRONG.excuses(differing(FindingKind.CACHE), of())


def test_unknown_checks_beside_the_fault_are_not_excused() -> None:
    assert not WRONG.excuses(differing(FindingKind.UNVERIFIED, unverified=1), of())
    assert not COUNTED.excuses(late(None), of())
    unknown = Check("streaming", Verdict.UNKNOWN, "nothing was streamed")
    assert not COUNTED.excuses(replace(late(6), checks=(*late(6).checks, unknown)), of())


def test_a_valid_judgement_is_not_excused() -> None:
    assert not COUNTED.excuses(late(0), of())


def test_every_known_fault_of_the_catalogue_says_where_it_was_seen() -> None:
    faults = [entry.known_fault for entry in catalogue() if entry.known_fault]
    assert faults
    assert all(fault.signs and fault.versions and fault.devices and fault.evidence for fault in faults)
