"""How often a wrong output was wrong again when its request was repeated."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.scenario import Condition
from harness.verdict import Finding
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import OutputEvidence

_HOW = {Condition.UNDER_LOAD: "under load", Condition.ALONE: "alone"}


def with_retries(findings: Iterable[Finding], evidence: OutputEvidence) -> Iterator[Finding]:
    """The findings, each with the results of the retries of its request."""
    for finding in findings:
        yield replace(finding, text=f"{finding.text}{_again(finding.request, evidence)}")


def _again(request_id: str | None, evidence: OutputEvidence) -> str:
    matches = {
        how: [one.match for request, one in evidence.retried if (request.about, request.condition) == (request_id, how)]
        for how in _HOW
    }
    wrong = {how: found.count(Match.MISMATCH) for how, found in matches.items()}
    if not any(matches.values()):
        return ""
    if not any(wrong.values()):
        return f"; it did not happen again in {sum(map(len, matches.values()))} retries"
    parts = (f"{wrong[how]} of {len(found)} retries {_HOW[how]}" for how, found in matches.items() if found)
    return f"; wrong again in {' and '.join(parts)}"
