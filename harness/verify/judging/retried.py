"""Whether wrong outputs came again when they were asked for once more, in words."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.scenario import Condition
from harness.verdict import Finding
from harness.verify.judging.compared import Match
from harness.verify.judging.evidence import OutputEvidence

_HOW = {Condition.UNDER_LOAD: "under load", Condition.ALONE: "alone"}


def with_retries(findings: Iterable[Finding], evidence: OutputEvidence) -> Iterator[Finding]:
    """Findings, with what the retries of their subjects came to."""
    for finding in findings:
        yield replace(finding, text=f"{finding.text}{_again(finding.subject, evidence)}")


def _again(subject: str, evidence: OutputEvidence) -> str:
    told = {
        how: [one.match for request, one in evidence.retried if (request.about, request.condition) == (subject, how)]
        for how in _HOW
    }
    wrong = {how: matches.count(Match.MISMATCH) for how, matches in told.items()}
    if not any(told.values()):
        return ""
    if not any(wrong.values()):
        return f"; it did not happen again in {sum(map(len, told.values()))} retries"
    parts = (f"{wrong[how]} of {len(matches)} {_HOW[how]}" for how, matches in told.items() if matches)
    return f"; wrong again in {' and '.join(parts)}"
