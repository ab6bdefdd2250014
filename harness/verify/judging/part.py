"""Some of a run's outputs by themselves; each was judged by the noise of the whole run, which is theirs as well."""

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
    """What is known of them."""

    check: Check | None
    """None where there is no output to judge."""
    counts: Outputs


def part_of(deployment: Deployment, history: History, evidence: OutputEvidence, request_ids: Collection[str]) -> Part:
    """The outputs of these requests. No policy leaves any of them out: what was not verified is unverified."""
    own = tuple(_meant(one) for one in evidence.compared if one.request_id in request_ids)
    probes = [
        (reading, one)
        for reading, one in zip(evidence.readings, evidence.probed, strict=True)
        if reading.probe.request.about in request_ids
    ]
    part = replace(
        evidence,
        compared=own,
        readings=tuple(reading for reading, _ in probes),
        probed=tuple(one for _, one in probes),
    )
    return Part(check_outputs(deployment, history, part) if own else None, tally(part))


def _meant(one: Compared) -> Compared:
    if one.match is not Match.UNSAMPLED:
        return one
    return replace(one, match=Match.UNVERIFIED, text="it was neither teacher-forced nor asked again")
