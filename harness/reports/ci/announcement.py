"""What a CI system says of a run in a few lines: its verdict first, then each check or workload that is not valid.

An unknown run is an error, like an invalid one: its exit code fails the step, and it must not look as if it had passed.
Below that line, invalid checks and workloads are errors, and unknown ones are warnings.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.redact import redact_text
from harness.reports.catalogue import Row
from harness.reports.identity import PROJECT
from harness.reports.reasons import Reason
from harness.reports.report import Report
from harness.reports.text import clean
from harness.verdict import Verdict

_LONGEST = 3000
"""Characters of a text; GitHub cuts a message of more than 4 KiB."""
_LONGEST_TITLE = 200


class Level(StrEnum):
    """How an announcement is shown; the values are those of GitHub's workflow commands."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


_OF_RUN = {Verdict.VALID: Level.NOTICE, Verdict.INVALID: Level.ERROR, Verdict.UNKNOWN: Level.ERROR}
_OF_PART = {**_OF_RUN, Verdict.UNKNOWN: Level.WARNING}


@dataclass(frozen=True, slots=True)
class Announcement:
    """A title and a text of one line or more, both printable and without credentials."""

    level: Level
    title: str
    text: str


def announcements(report: Report) -> Iterator[Announcement]:
    """The run's verdict, then what is not valid and counts."""
    name = " ".join(filter(None, (PROJECT, report.identity.label)))
    lines = (report.overview.headline, f"To repeat the run: {report.identity.command}")
    yield _made(_OF_RUN[report.verdict], f"{name}: {report.verdict.upper()}", lines)
    if report.rows:
        yield from of_rows(report.rows)
    else:
        yield from map(_of_reason, (one for one in report.overview.reasons if not one.ignored_as))


def of_rows(rows: Iterable[Row]) -> Iterator[Announcement]:
    """The workloads that are not valid. A known fault, and a workload that could not run, do not count."""
    for row in rows:
        if row.verdict is not None and row.verdict is not Verdict.VALID and not row.excused:
            title = f"{row.verdict}: {row.workload} on {row.deployment_name}"
            yield _made(_OF_PART[row.verdict], title, row.reasons)


def _of_reason(reason: Reason) -> Announcement:
    findings = [f"{finding.subject}: {finding.text}" for finding in reason.findings]
    more = [f"and {reason.more} more"] if reason.more else []
    lines = (reason.summary, *findings, *more, reason.advice)
    return _made(_OF_PART[reason.verdict], f"{reason.verdict}: {reason.name}", lines)


def _made(level: Level, title: str, lines: Iterable[str]) -> Announcement:
    text = "\n".join(clean(redact_text(line), _LONGEST) for line in lines if line)
    return Announcement(level, clean(redact_text(title), _LONGEST_TITLE), text[:_LONGEST])


def at_most(found: Sequence[Announcement], number: int) -> Iterator[Announcement]:
    """At most so many of each level; the last of a level then says how many are left out."""
    for level in Level:
        of_level = [one for one in found if one.level is level]
        if len(of_level) <= number:
            yield from of_level
            continue
        yield from of_level[: number - 1]
        left = len(of_level) - number + 1
        yield Announcement(level, f"{PROJECT}: {left} more", f"{left} more are in the report, not shown here")
