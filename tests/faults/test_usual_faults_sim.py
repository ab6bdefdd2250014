"""Every kind of fault in all its forms, the end of leases apart, on a simulated pair with a process for each server.

Each is observed and healed, and harms nobody. Prompts are short: verification asks every block of every prompt again,
through four caches, which makes most of a run.
"""

from collections.abc import Iterator

import pytest

import harness
from harness.faults import KINDS, USUAL, parse_fault, relays_for
from harness.faults.cancel import Cancel
from harness.faults.link import Link
from harness.faults.metrics import Metrics
from harness.faults.metrics_spoiled import Spoiling
from harness.faults.relay_manner import How
from harness.scenario import Moment
from harness.verdict import FindingKind

_LEASE = {"kv_lease_duration": 2}
"""Seconds. With vLLM's 30, each fault that leaves blocks to their lease would take half a minute."""
_WRONG = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK, FindingKind.CACHE)
_FURTHER = (
    "pause:server=decode-0,part=engine",
    "drain:server=prefill-0",
    "drain:server=proxy",
    "metrics:server=prefill-0,how=slow",
    "metrics:server=decode-0,how=cut",
    "metrics:server=prefill-0,how=short",
    "metrics:server=decode-0,how=nan",
    "metrics:server=prefill-0,how=restarted",
)
CATALOGUE = (*USUAL, *_FURTHER)
"""NIXL's side channel is the one link that is not here: the simulated pair moves its KV over it, as vLLM does not."""
_ELSEWHERE = {"lease"}
"""A lease that ends does harm, since simulated servers read expired blocks as vLLM 0.32.0 does: test_lease_sim.py."""


def test_every_kind_is_here_in_all_its_forms() -> None:
    faults = [parse_fault(text).fault for text in CATALOGUE]
    assert {fault.kind for fault in faults} | _ELSEWHERE == set(KINDS)
    assert {fault.how for fault in faults if isinstance(fault, Link)} == set(How) - {How.PASS}
    assert {fault.how for fault in faults if isinstance(fault, Metrics)} == set(Spoiling) - {Spoiling.NOTHING}
    assert {fault.moment for fault in faults if isinstance(fault, Cancel)} == set(Moment)
    for kind in ("pause", "kill", "drain"):
        targets = {fault.target for fault in faults if fault.kind == kind}
        assert targets == {"prefill-0", "decode-0", "proxy"}, kind


@pytest.fixture(scope="module")
def deployment() -> Iterator[harness.RunningDeployment]:
    relays = relays_for(parse_fault(text) for text in CATALOGUE)
    with harness.simulate(separate_processes=True, relays=relays, nixl_config=_LEASE, num_warmups=1) as running:
        yield running


def _timed(fault: str) -> str:
    """The fault with its time, unless the load itself is its time. None begins when a quick load may be nearly over."""
    if fault.startswith("cancel"):
        return fault
    if "how=idle" in fault:
        # A connection must have been silent for a time, and then be used again.
        return f"{fault},after=0,idle=0.1,for=1"
    moment = "ended=5" if fault.startswith(("pause", "kill", "drain")) else "after=0"
    return f"{fault},{moment},for=0.3"


def _beside(fault: str) -> tuple[str, ...]:
    """A slow link to decode, if clients leave before their first token.

    A simulated transfer takes a few milliseconds, in which a client on a busy machine does not reliably leave.
    """
    waits = fault.startswith("cancel") and f"moment={Moment.STREAM}" not in fault
    return ("link:link=decode-0,how=delay,ms=50,after=0,for=1",) if waits else ()


def _requires_no_harm(report: harness.Report) -> None:
    checks = {check.name: check for check in report.checks}
    assert checks["faults"].verdict is harness.Verdict.VALID, checks["faults"].summary
    assert not [finding for finding in report.findings if finding.kind in _WRONG]
    invalid = [f"{one.name}: {one.summary}" for one in report.checks if one.verdict is harness.Verdict.INVALID]
    assert report.verdict is not harness.Verdict.INVALID, "\n".join(invalid)


@pytest.mark.slow
@pytest.mark.parametrize("fault", CATALOGUE)
def test_a_fault_is_observed_healed_and_harms_nobody(deployment: harness.RunningDeployment, fault: str) -> None:
    # A busy machine may notice late that five requests have ended.
    prompts = 160 if "how=idle" in fault else 80 if fault.startswith(("pause", "kill", "drain", "cancel")) else 40
    load = harness.RandomLoad(num_prompts=prompts, concurrency=16, input_len=(20, 100), output_len=12)
    _requires_no_harm(deployment.run(load, faults=[_timed(fault), *_beside(fault)], verify="sample:4"))
