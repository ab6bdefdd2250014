"""What a run with a fault showed, in one row. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.checkers.windows import windows
from harness.history import Ending, History, Outcome
from harness.verdict import Finding, FindingKind, Judgement, Verdict

_WRONG = (FindingKind.WRONG_OUTPUT, FindingKind.LEAK, FindingKind.CACHE)
COLUMNS = (
    *("fault", "verdict", "requests OK", "failed clearly", "wrong", "hung", "bystanders harmed", "blocks leaked"),
    "recovered in s",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One fault of one run. Requests are those of the load, without the reads after it."""

    fault: str
    """As in ``--fault``."""
    verdict: Verdict
    completed: int
    failed: int
    """Ended with an error, or without an answer, before the client's time limit."""
    wrong: int
    """Answered with something other than the answer to their prompt, re-reads included."""
    hung: int
    """Not answered within the client's time limit."""
    bystanders: int
    """Requests that failed, hung or were wrong although no fault was at work."""
    leaked: int
    """Servers that kept KV blocks, or requests, after the lease."""
    recovered: float | None
    """Seconds from the healing to the first completed request that was sent after it; None: not known."""
    evidence: str
    """What was observed of the fault, or why nothing was."""
    remarks: tuple[str, ...] = ()
    """What the checks that are not valid say."""

    def cells(self) -> tuple[str, ...]:
        """The row's texts, one for each of ``COLUMNS``."""
        recovered = "—" if self.recovered is None else f"{self.recovered:.1f}"
        counts = (self.completed, self.failed, self.wrong, self.hung, self.bystanders, self.leaked)
        return (self.fault, str(self.verdict), *(f"{count:,}" for count in counts), recovered)


def row(fault: str, history: History, judgement: Judgement) -> Row:
    """The row of a run whose only faults are those that ``fault`` names."""
    found = windows(history)
    faulted = {(one.planned.scenario, one.planned.phase) for one in found}
    sent = [one for one in history.operations() if (one.sent.scenario, one.sent.phase) in faulted]
    # The harness's own clients left: nothing failed.
    load = [one for one in sent if one.ended.ending is not Ending.LEFT]
    wrong = {finding.request for check in judgement.checks for finding in check.findings if finding.kind in _WRONG}
    bad = [one for one in load if one.outcome is not Outcome.OK or one.request.request_id in wrong]
    hung = sum(one.ended.ending is Ending.TIMED_OUT for one in load)
    return Row(
        fault=fault,
        verdict=judgement.verdict,
        completed=sum(one.outcome is Outcome.OK for one in load),
        failed=sum(one.outcome is not Outcome.OK for one in load) - hung,
        wrong=len(wrong),
        hung=hung,
        bystanders=sum(not any(window.overlaps(one) for window in found) for one in bad),
        leaked=len({finding.server for finding in _leaks(judgement)}),
        recovered=max((one.recovered_after for one in found if one.recovered_after is not None), default=None),
        evidence="; ".join(one.evidence or one.text or "the fault was not begun" for one in found),
        remarks=tuple(f"{one.name}: {one.summary}" for one in judgement.checks if one.verdict is not Verdict.VALID),
    )


def _leaks(judgement: Judgement) -> Iterator[Finding]:
    for check in judgement.checks:
        if check.name == "settled" and check.verdict is Verdict.INVALID:
            yield from check.findings
