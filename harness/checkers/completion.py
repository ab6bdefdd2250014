"""Whether the deployment answered what it was asked.

Every request of a run's load is a valid one. Where one did not complete, how it ended says whose doing that is:

    ending                                             verdict  because
    refused, with 401, 402, 403, 407 or 511            unknown  the user's credentials are missing or wrong
    refused, with 429                                  unknown  whoever limits the rate, not the servers, refused
    refused, with 408                                  unknown  the request did not arrive in time
    refused, with 3xx                                  unknown  the URL is not that of the deployment
    refused, with any other status, 5xx most of all    invalid  the servers refused what they should serve
    error_inside, unfinished                           invalid  the servers failed after they had begun to answer
    cut, after a status of 200                         invalid  the same
    cut, before any status                             unknown  a connection may close as the request leaves
    timed_out, with or without a beginning             unknown  the client gave up: it may be the load, or the limit
    unreadable                                         unknown  the harness cannot undo what compressed the answer
    not_connected, no_end                              unknown  there was no answer
    not_sent, client_crashed, interrupted              unknown  it was the harness, or its user

A request that says with which status it must be refused (``Request.expect_status``) makes the run invalid by being
served, or refused with a status that the table above calls invalid. A run of which nothing completed is unknown.

What the harness asks in order to verify others (``Request.purpose``) is no load: whatever became of it, what it was to
show is unknown at most. References are not looked at: the check of the outputs says what is unverified without them.
"""

from collections.abc import Sequence

from harness.facts import Deployment
from harness.history import Ending, History, Operation, Outcome
from harness.scenario import Purpose, Route
from harness.verdict import Check, Finding, Verdict, worst

_LISTED = 50
"""Findings kept: the first tell the cause, and ten thousand tell no more."""

_CREDENTIALS = "the servers want credentials, or others than they were given: give them with --header"
_REDIRECT = "no redirect is followed: give the URL that answers by itself"
_REMEDIES = {
    **dict.fromkeys((401, 402, 403, 407, 511), _CREDENTIALS),
    408: "the request did not arrive in time: look at the machine and the network between",
    429: "something limits the rate of requests: raise its limit, or use a lower --concurrency",
    **dict.fromkeys(range(300, 400), _REDIRECT),
}
"""Statuses that are no evidence against the deployment, and what to do about each."""
_BY_SERVERS = (Ending.ERROR_INSIDE, Ending.UNFINISHED, Ending.CUT)
"""Endings that are the deployment's doing once it has answered 200."""


_JUDGED_ELSEWHERE = (Purpose.REFERENCE, Purpose.CONTROL, Purpose.FORCING, Purpose.RESET, Purpose.SALT_TEST)
"""Purposes of requests of which the checkers of outputs and of salts tell what became of them."""


def completion(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """Every request completed, and one at least by the path under test."""
    asked = [o for o in history.operations() if o.request.purpose not in _JUDGED_ELSEWHERE]
    load = [operation for operation in asked if operation.request.of_load]
    served = [operation for operation in load if operation.request.expect_status is None]
    tested = [operation for operation in served if operation.request.route is Route.PROXY] or served
    completed = sum(operation.outcome is Outcome.OK for operation in tested)
    failed = sorted((o for o in load if not _as_expected(o)), key=lambda o: _of_one(o) is not Verdict.INVALID)
    inquiries = [o for o in asked if not o.request.of_load and not _as_expected(o)]
    verdict = worst((_of_all(completed, history), *map(_of_one, failed), *(Verdict.UNKNOWN for _ in inquiries)))
    findings = tuple(_finding(operation) for operation in (*failed, *inquiries)[:_LISTED])
    words = (
        _of_tested(completed, len(tested), len(load) - len(served)),
        *_of_failed(failed, "did not"),
        *_of_failed(inquiries, "of the harness's own to verify others did not, and what they were to show is unknown"),
        *(["the run was interrupted"] if history.ended_early else []),
    )
    return Check("completion", verdict, "; ".join(words), findings=findings)


def _as_expected(operation: Operation) -> bool:
    wanted = operation.request.expect_status
    return operation.outcome is Outcome.OK if wanted is None else operation.ended.status == wanted


def _of_all(completed: int, history: History) -> Verdict:
    return Verdict.VALID if completed and not history.ended_early else Verdict.UNKNOWN


def _of_one(operation: Operation) -> Verdict:
    """Of a request of the load that did not end as it should: INVALID or UNKNOWN, by the table above."""
    ended = operation.ended
    if operation.request.expect_status is not None and ended.status == 200:
        return Verdict.INVALID
    if ended.ending is Ending.REFUSED:
        return Verdict.UNKNOWN if ended.status in _REMEDIES else Verdict.INVALID
    by_servers = ended.ending in _BY_SERVERS and ended.status is not None
    return Verdict.INVALID if by_servers else Verdict.UNKNOWN


def _finding(operation: Operation) -> Finding:
    ended = operation.ended
    # The cause of a refusal begins with its status.
    status = "" if ended.status is None or ended.ending is Ending.REFUSED else f"HTTP {ended.status}"
    text = ": ".join(filter(None, (status, ended.cause))) or f"it ended as {ended.ending}"
    if (wanted := operation.request.expect_status) is not None:
        text += f"; expected HTTP {wanted}"
    if ended.ending is Ending.REFUSED and (remedy := _REMEDIES.get(ended.status or 0)):
        text += f"; {remedy}"
    who = operation.request.request_id
    return Finding(who, text, request=who if operation.request.of_load else operation.request.about)


def _of_tested(completed: int, tested: int, refusals: int) -> str:
    line = f"{completed:,} of {tested:,} requests completed"
    return f"{line}, {refusals:,} were to be refused" if refusals else line


def _of_failed(failed: Sequence[Operation], what: str) -> list[str]:
    if not failed:
        return []
    one = _finding(failed[0])
    return [f"{len(failed):,} {what}, the first being {one.subject}: {one.text}"]
