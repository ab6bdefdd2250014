"""Why a run is not valid, as a user reads it: each check that is not valid, with its findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.reports.catalogue import Row
from harness.reports.text import clean
from harness.verdict import Check, Finding, Judgement, Verdict

MOST_FINDINGS = 3
"""Findings shown of one check."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One check that is not valid."""

    verdict: Verdict
    name: str
    summary: str
    findings: tuple[Finding, ...]
    """One for each text, with all subjects that the text is about; without findings that the summary contains."""
    more: int
    """Number of findings that are not shown."""
    advice: str = ""
    """One likely cause, and what to do."""
    ignored_as: str = ""
    """Why the check does not count for the run's verdict, in a word or two; empty if it counts."""

    @property
    def word(self) -> str:
        """The verdict as shown."""
        return self.ignored_as.upper() or self.verdict.upper()


def ignored_checks(judgement: Judgement, rows: Sequence[Row]) -> Mapping[str, str]:
    """Checks of the whole run that count in no row of the table, by name, each with the reason."""
    counted = {check.name for row in rows if not row.excused for check in _bad(row.judgement)}
    known = {check.name for row in rows if row.excused for check in _bad(row.judgement)}
    ignored = {check.name for check in _bad(judgement)} - counted if rows else set()
    return {name: "known fault" if name in known else "not counted" for name in ignored}


def _bad(judgement: Judgement | None) -> Sequence[Check]:
    return () if judgement is None else [one for one in judgement.checks if one.verdict is not Verdict.VALID]


def reasons_of(checks: Sequence[Check], ignored: Mapping[str, str]) -> tuple[Reason, ...]:
    """Invalid checks, then unknown checks, then checks that do not count; each group in the order of the checks."""
    reasons: list[Reason] = []
    shown_by: dict[str, str] = {}
    for verdict in (Verdict.INVALID, Verdict.UNKNOWN):
        for check in checks:
            if check.verdict is verdict:
                reason, why_ignored = _reason(check, shown_by), ignored.get(check.name, "")
                # Nothing needs to be done about a check that does not count.
                reasons.append(replace(reason, ignored_as=why_ignored, advice="") if why_ignored else reason)
                for why in _whys(check):
                    shown_by.setdefault(why, check.name)
    return tuple(sorted(reasons, key=lambda reason: bool(reason.ignored_as)))


def _whys(check: Check) -> set[str]:
    """The reasons why comparisons are unknown."""
    return {clean(part.why_unknown, None) for part in check.comparisons if part.verdict is Verdict.UNKNOWN} - {""}


def _reason(check: Check, shown_by: Mapping[str, str]) -> Reason:
    """One check. A reason that an earlier check has is not repeated (``shown_by``: that check's name by the reason)."""
    summary = clean(check.summary, None)
    for why in sorted(_whys(check) & set(shown_by), key=len, reverse=True):
        summary = summary.replace(why, f"for the same reason as {shown_by[why]}")
    findings = _by_text(check.findings, summary)
    shown = tuple(Finding(_several(subjects), text) for text, subjects in findings[:MOST_FINDINGS])
    more = sum(len(subjects) for _, subjects in findings[MOST_FINDINGS:])
    advice = clean(str(check.advice), None) if check.advice else ""
    return Reason(check.verdict, check.name, summary, shown, more, advice)


def _by_text(findings: Sequence[Finding], summary: str) -> list[tuple[str, list[str]]]:
    """Each text with the subjects of its findings, without subjects that the summary shows with the same text."""
    subjects: dict[str, list[str]] = {}
    for finding in findings:
        subjects.setdefault(clean(finding.text, None), []).append(clean(finding.subject, 60))
    groups = []
    for text, about in subjects.items():
        if text not in summary:
            groups.append((text, about))
        elif others := [subject for subject in dict.fromkeys(about) if subject not in summary]:
            groups.append(("the same", others))
    return groups


def _several(subjects: Sequence[str]) -> str:
    more = len(subjects) - MOST_FINDINGS
    return ", ".join(subjects[:MOST_FINDINGS]) + (f" and {more:,} more" if more > 0 else "")
