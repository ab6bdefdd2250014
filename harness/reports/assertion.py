"""A judgement as the text of a failed assertion: what is wrong, with expected and observed values of each counter."""

from collections.abc import Iterator

from harness.reports.counters import comparison_line
from harness.reports.text import clean
from harness.verdict import Check, Judgement, Verdict

_LISTED = 20


def explain(name: str, judgement: Judgement) -> str:
    """Why a workload is not valid; a single line if it is."""
    bad = [
        check
        for verdict in (Verdict.INVALID, Verdict.UNKNOWN)
        for check in judgement.checks
        if check.verdict is verdict
    ]
    return "\n".join([f"{name} is {judgement.verdict}", *(line for check in bad for line in _check(check))])


def _check(check: Check) -> Iterator[str]:
    yield f"  {check.verdict} {check.name}: {clean(check.summary, None)}"
    wrong = [one for one in check.comparisons if one.verdict is not Verdict.VALID]
    yield from (f"    {comparison_line(one)}" for one in wrong[:_LISTED])
    findings = [one for one in check.findings if f"{one.subject}: {one.text}" not in check.summary]
    yield from (f"    {clean(f'{finding.subject}: {finding.text}', None)}" for finding in findings[:_LISTED])
    if further := max(len(wrong) - _LISTED, 0) + max(len(findings) - _LISTED, 0):
        yield f"    and {further:,} more"
    if check.advice:
        yield f"    {clean(str(check.advice), None)}"
