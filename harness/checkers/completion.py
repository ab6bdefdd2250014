"""Whether the deployment answered every request.

Every request of a run's load is valid, so the deployment must serve it. The ending of a failed request decides:

    ending                                     verdict  because
    refused with 401, 402, 403, 407 or 511     unknown  the user's credentials are missing or wrong
    refused with 429                           unknown  a rate limit refused it, not the servers
    refused with 408                           unknown  the request did not arrive in time
    refused with 507                           unknown  the proxy ran out of files of its own, or the like
    refused with 3xx                           unknown  the URL is not that of the deployment
    refused with any other status              invalid  the servers refused a request that they should serve
    error_inside, unfinished                   invalid  the servers failed after they had begun to answer
    cut after a status of 200                  invalid  the servers failed after they had begun to answer
    cut before any status                      unknown  the connection may have closed as the request was sent
    timed_out                                  unknown  the load may be too high, or the time limit too short
    left                                       valid    the harness's client left, as the run had planned
    unreadable                                 unknown  the harness cannot undo the answer's compression
    not_connected, no_end                      unknown  there was no answer
    not_sent, client_crashed, interrupted      unknown  the harness or its user ended the request

A request that ``may_be_refused`` may be served, or end as refused or error_inside. It may not time out: that is
invalid, since the servers need only have refused it.

A request with an ``expect_status`` must be refused with that status. The run is invalid if the request is served, or
refused with a status that is invalid in the table. A run without any completed request is unknown.

A failed request that verifies another request (``Request.purpose``) makes the run unknown at most. Failed references,
controls, forcings, resets and salt tests are reported by the checks ``outputs`` and ``salts``, with the requests that
could not be verified.

A request that overlapped a fault of the run which may cause errors (``Tolerated.ERRORS``) may fail, in any clear way.
It may not hang: one that timed out, although the fault had been undone for most of its time, was never going to be
answered, which is invalid. If it is not known whether the fault took hold, nothing is known of the failure either.
"""

from collections.abc import Sequence

from harness.checkers.windows import at_work
from harness.facts import Deployment
from harness.history import Ending, History, Operation, Outcome, Tolerated
from harness.scenario import Purpose, Route
from harness.verdict import Check, Finding, Verdict, worst

_LISTED = 50
"""Findings kept: the first ones are enough to see the cause."""

_CREDENTIALS = "credentials are missing or wrong: give them with --header"
_REDIRECT = "the harness follows no redirects: give the URL that it redirects to"
_REMEDIES = {
    **dict.fromkeys((401, 402, 403, 407, 511), _CREDENTIALS),
    408: "the request did not arrive in time: check the client's machine and the network",
    429: "something limits the rate of requests: raise its limit, or use a lower --concurrency",
    507: "a proxy ran out of something of its own, such as open files: raise its limits (ulimit -n)",
    **dict.fromkeys(range(300, 400), _REDIRECT),
}
"""Statuses that are no evidence against the deployment, and what to do about each."""
_BY_SERVERS = (Ending.ERROR_INSIDE, Ending.UNFINISHED, Ending.CUT)
"""Endings that the deployment caused if the status was 200."""
_JUDGED_ELSEWHERE = (Purpose.REFERENCE, Purpose.CONTROL, Purpose.FORCING, Purpose.RESET, Purpose.SALT_TEST)
"""Purposes of requests whose failures the checks ``outputs`` and ``salts`` report."""


def completion(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """Every request completed, at least one of them by the path under test."""
    asked = [o for o in history.operations() if o.request.purpose not in _JUDGED_ELSEWHERE]
    load = [operation for operation in asked if operation.request.of_load]
    served = [operation for operation in load if operation.request.expect_status is None]
    tested = [operation for operation in served if operation.request.route is Route.PROXY] or served
    completed = sum(operation.outcome is Outcome.OK for operation in tested)
    left = sum(operation.ended.ending is Ending.LEFT for operation in tested)
    clearly = sum(map(refused_clearly, load))
    unserved = [(o, _under_faults(o, history)) for o in load if not as_expected(o)]
    excused = sum(verdict is Verdict.VALID for _, verdict in unserved)
    failed = [o for o, verdict in unserved if verdict is not Verdict.VALID]
    verdicts = {o.request.request_id: verdict for o, verdict in unserved}
    failed.sort(key=lambda o: verdicts[o.request.request_id] is not Verdict.INVALID)
    verifying = [o for o in asked if not o.request.of_load and not as_expected(o)]
    whole = Verdict.VALID if completed and not history.ended_early else Verdict.UNKNOWN
    verdict = worst((whole, *verdicts.values(), *(Verdict.UNKNOWN for _ in verifying)))
    findings = tuple(_finding(operation) for operation in (*failed, *verifying)[:_LISTED])
    refusals = len(load) - len(served)
    parts = (
        f"{completed:,} of {len(tested) - left:,} requests completed"
        + (f", the clients of {left:,} others left as planned" if left else "")
        + (f", {refusals:,} were to be refused" if refusals else ""),
        *([f"{clearly:,} were refused clearly, as they may be"] if clearly else []),
        *([f"{excused:,} failed clearly while a fault was at work"] if excused else []),
        *_first_of(failed, "did not"),
        *_first_of(verifying, "that verify other requests failed, so that what they verify is unknown"),
        *(["the run ended early"] if history.ended_early else []),
    )
    return Check("completion", verdict, "; ".join(parts), findings=findings)


def as_expected(operation: Operation) -> bool:
    """Whether the request completed, its client left as planned, or it was refused with the status that it must be."""
    if operation.ended.ending is Ending.LEFT or refused_clearly(operation):
        return True
    wanted = operation.request.expect_status
    return operation.outcome is Outcome.OK if wanted is None else operation.ended.status == wanted


def refused_clearly(operation: Operation) -> bool:
    """Whether a request that the servers may refuse was refused, with an error as answer."""
    clear = operation.ended.ending in (Ending.REFUSED, Ending.ERROR_INSIDE)
    return operation.request.may_be_refused and clear


def _under_faults(operation: Operation, history: History) -> Verdict:
    """The verdict about a request that did not end as expected; VALID if a fault of the run explains it.

    A fault that was begun, and not observed to have taken hold, may explain it: then the verdict is UNKNOWN.
    """
    begun = list(at_work(history, operation, Tolerated.ERRORS))
    if not begun or operation.ended.ending is Ending.CLIENT_CRASHED:
        return _verdict(operation)
    tolerant = [one for one in begun if one.evidence]
    if not tolerant:
        return Verdict.UNKNOWN
    if operation.ended.ending is not Ending.TIMED_OUT:
        return Verdict.VALID
    healed = max((one.healed_at or operation.ended.at for one in tolerant), default=operation.ended.at)
    waited = operation.ended.at - max(healed, operation.sent.at)
    return Verdict.INVALID if 2 * waited > operation.ended.at - operation.sent.at else Verdict.VALID


def _verdict(operation: Operation) -> Verdict:
    """INVALID or UNKNOWN, by the table above, for a request of the load that did not end as expected."""
    ended = operation.ended
    if operation.request.expect_status is not None and ended.status == 200:
        return Verdict.INVALID
    if operation.request.may_be_refused and ended.ending is Ending.TIMED_OUT:
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


def _first_of(failed: Sequence[Operation], what: str) -> list[str]:
    if not failed:
        return []
    one = _finding(failed[0])
    return [f"{len(failed):,} {what}; the first is {one.subject}: {one.text}"]
