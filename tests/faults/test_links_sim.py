"""Faults on links beside a load of a simulated pair, as a user causes them."""

import pytest

import harness
from harness.faults import parse_fault, relays_for
from harness.history import FaultHealed, FaultProved
from harness.verdict import Verdict

FAULTS = (
    # The blocks of requests that were cut are held until their lease has ended, half a minute later.
    "link:link=prefill-0,how=cut,after=0.1,for=0.3",
    "link:link=prefill-0,how=delay,ms=30,after=0.1,for=0.3",
    "link:link=decode-0,how=throttle,rate=20000,after=0.1,for=0.3",
)


@pytest.mark.slow
def test_a_pair_gets_over_disturbed_links_and_answers_rightly() -> None:
    relays = relays_for(map(parse_fault, FAULTS))
    with harness.simulate(relays=relays, num_warmups=1) as deployment:
        for fault in FAULTS:
            load = harness.RandomLoad(num_prompts=150, concurrency=8)
            report = deployment.run(load, faults=[fault], verify="sample:8", request_timeout=20)
            (proved,), (healed,) = (list(report.history.of(kind)) for kind in (FaultProved, FaultHealed))
            assert proved.evidence
            assert healed.healed, healed.text
            assert report.verdict is not Verdict.INVALID, report
            assert next(one for one in report.judgement.checks if one.name == "faults").verdict is Verdict.VALID
