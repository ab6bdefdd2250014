"""The verdict on a part of the outputs of a run, with the noise of the whole run."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, Outputs
from harness.verify.judging.check import check_outputs, tally
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.evidence import OutputEvidence


@dataclass(frozen=True, slots=True)
class Part:
    """The verdict on some outputs."""

    check: Check | None
    """None if there are no such outputs."""
    counts: Outputs


def part_of(deployment: Deployment, history: History, evidence: OutputEvidence, request_ids: Collection[str]) -> Part:
    """The verdict on the outputs of these requests; an output that was left out counts as unverified."""
    own = tuple(_verifiable(one) for one in evidence.compared if one.request_id in request_ids)
    probed = tuple((probe, one) for probe, one in evidence.probed if probe.operation.request.about in request_ids)
    part = replace(evidence, compared=own, probed=probed)
    return Part(check_outputs(deployment, history, part) if own else None, tally(part))


def _verifiable(one: Compared) -> Compared:
    if one.match is not Match.LEFT_OUT:
        return one
    return replace(one, match=Match.UNVERIFIED, text="it was neither teacher-forced nor compared with a reference")
