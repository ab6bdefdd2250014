"""A judgement as the text of a failed assertion: what is wrong, with expected and observed values of each counter."""

from collections.abc import Iterator

from harness.reports.text import clean, count, signed
from harness.verdict import Check, Comparison, Judgement, Verdict

_LISTED = 20


def explain(name: str, judgement: Judgement) -> str:
    """Why a workload is not valid; a single line if it is."""
    return "\n".join(_lines(name, judgement))


def _lines(name: str, judgement: Judgement) -> Iterator[str]:
    yield f"{name} is {judgement.verdict}"
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for check in judgement.checks:
            if check.verdict is verdict:
                yield from _check(check)


def _check(check: Check) -> Iterator[str]:
    yield f"  {check.verdict} {check.name}: {clean(check.summary, None)}"
    wrong = [one for one in check.comparisons if one.verdict is not Verdict.VALID]
    yield from (f"    {_comparison(one)}" for one in wrong[:_LISTED])
    findings = [one for one in check.findings if f"{one.subject}: {one.text}" not in check.summary]
    yield from (f"    {clean(f'{finding.subject}: {finding.text}', None)}" for finding in findings[:_LISTED])
    if further := max(len(wrong) - _LISTED, 0) + max(len(findings) - _LISTED, 0):
        yield f"    and {further:,} more"
    if check.advice:
        yield f"    {clean(str(check.advice), None)}"


def _comparison(one: Comparison) -> str:
    what = f"{one.phase}: {one.server} {one.counter}"
    if one.expected is None or one.observed is None:
        seen = f"observed {count(one.observed)}" if one.expected is None else f"expected {one.expected}"
        return f"{what}: {seen}; {clean(one.why_unknown, None)}"
    difference = one.observed - (one.expected.low if one.observed < one.expected.low else one.expected.high)
    return f"{what}: expected {one.expected}, observed {count(one.observed)} ({signed(difference)})"
