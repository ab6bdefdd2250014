"""Whether wrong outputs came again when they were asked for once more, in words."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.checkers.outputs.compared import Match
from harness.checkers.outputs.evidence import OutputEvidence
from harness.verdict import Finding

_HOW = {"together": "under load", "alone": "alone"}


def with_retries(findings: Iterable[Finding], evidence: OutputEvidence) -> Iterator[Finding]:
    """Findings, with what the retries of their subjects came to."""
    for finding in findings:
        yield replace(finding, text=f"{finding.text}{_again(finding.subject, evidence)}")


def _again(subject: str, evidence: OutputEvidence) -> str:
    told = {
        how: [one.match for inquiry, one in evidence.retried if (inquiry.about, inquiry.under) == (subject, how)]
        for how in _HOW
    }
    wrong = {how: matches.count(Match.MISMATCH) for how, matches in told.items()}
    if not any(told.values()):
        return ""
    if not any(wrong.values()):
        return f"; it did not happen again in {sum(map(len, told.values()))} retries"
    parts = (f"{wrong[how]} of {len(matches)} {_HOW[how]}" for how, matches in told.items() if matches)
    return f"; wrong again in {' and '.join(parts)}"
