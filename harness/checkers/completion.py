"""Whether the deployment answered what it was asked.

A request that got an answer and failed (a 4xx, a 5xx, a stream cut short, an error event) makes the run invalid:
every request of a run is a valid one. Those that say with which status they must be refused
(``Request.expect_status``) make it so by being served, or refused otherwise. Without any answer (a timeout, a refused
connection, no end in the history) nobody knows whose fault it was: unknown. So is a run of which nothing completed.
"""

from harness.facts import Deployment
from harness.history import History, Operation, Outcome
from harness.scenario import Route
from harness.verdict import Check, Finding, Verdict, worst

_LISTED = 50
"""Findings kept: the first tell the cause, and ten thousand tell no more."""


def completion(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """Every request completed, and one at least by the path under test."""
    asked = [
        operation
        for operation in history.operations()
        if operation.request.reference_for is None
        and not operation.request.resets
        and not operation.request.tests_salts
    ]
    served = [operation for operation in asked if operation.request.expect_status is None]
    tested = [operation for operation in served if operation.request.route is Route.PROXY] or served
    completed = sum(operation.outcome is Outcome.OK for operation in tested)
    failed = [operation for operation in asked if not _as_expected(operation)]
    verdict = worst((_of_all(completed, history), *map(_of_one, failed)))
    findings = tuple(_finding(operation) for operation in failed[:_LISTED])
    summary = _summary(completed, len(tested), failed, history, len(asked) - len(served))
    return Check("completion", verdict, summary, findings=findings)


def _as_expected(operation: Operation) -> bool:
    wanted = operation.request.expect_status
    return operation.outcome is Outcome.OK if wanted is None else operation.ended.status == wanted


def _of_all(completed: int, history: History) -> Verdict:
    return Verdict.VALID if completed and not history.interrupted else Verdict.UNKNOWN


def _of_one(operation: Operation) -> Verdict:
    ended = operation.ended
    timed_out = any(word in ended.cause.lower() for word in ("timeout", "timed out"))
    return Verdict.UNKNOWN if ended.status is None or timed_out else Verdict.INVALID


def _finding(operation: Operation) -> Finding:
    ended = operation.ended
    status = "" if ended.status is None else f"HTTP {ended.status}, "
    wanted = operation.request.expect_status
    text = f"{status}{ended.outcome}: {ended.cause}" if ended.cause else f"{status}{ended.outcome}"
    return Finding(operation.request.request_id, text if wanted is None else f"{text}; expected HTTP {wanted}")


def _summary(completed: int, tested: int, failed: list[Operation], history: History, refusals: int) -> str:
    line = f"{completed:,} of {tested:,} requests completed"
    if refusals:
        line += f", {refusals:,} were to be refused"
    if failed:
        one = _finding(failed[0])
        line += f"; {len(failed):,} did not, the first being {one.subject}: {one.text}"
    return f"{line}; the run was interrupted" if history.interrupted else line
