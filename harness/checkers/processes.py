"""Whether all processes that the harness started were still running when the run ended.

If a server or proxy dies (out of memory, killed, or by its own fault), later requests to it fail, and so do other
servers' transfers with it. This says nothing about the correctness of KV transfer, so every invalid check becomes
unknown, and the end of the process's log is quoted. Wrong outputs remain invalid.

There is one exception. If a decode server died while it served a request with another request's reference to KV
(``Request.reference``), and served nothing more, the reference ended it. A server must refuse what it cannot serve, so
this is invalid, and the finding names the request.
"""

from dataclasses import replace

from harness.facts import Deployment, Role
from harness.history import DeadProcess, History, Operation, Outcome
from harness.scenario import Route
from harness.verdict import Check, Finding, Verdict

_STAYING = ("outputs", "salts", "processes")
"""Checks that stay invalid: a wrong answer is not caused by the death of a process."""


def processes(deployment: Deployment, history: History) -> Check:
    """No process that the harness started died."""
    cause = _ended_by(deployment, history)
    findings = tuple(_finding(one, cause) for one in history.died)
    verdict = Verdict.INVALID if any(one.request for one in findings) else Verdict.UNKNOWN
    return Check("processes", verdict, f"during the run {'; '.join(one.text for one in findings)}", findings=findings)


def _finding(died: DeadProcess, cause: Operation | None) -> Finding:
    if cause is None or died.name != f"{Role.DECODE}-0":
        return Finding(died.name, died.text)
    request = cause.request
    how = f"altered ({request.altered})" if request.altered else "given as it was"
    text = f"while it served {request.request_id}, whose reference was {how}, {died.text}"
    return Finding(died.name, text, request=request.request_id, server=died.name)


def _ended_by(deployment: Deployment, history: History) -> Operation | None:
    """The request with a reference that the only decode server failed to answer, and after which it answered none."""
    asked = [one for one in history.operations() if one.request.route in (Route.DECODE, Route.PROXY)]
    last = max((one.sent.at for one in asked if one.outcome is Outcome.OK), default=0.0)
    failed = (one for one in asked if one.request.reference and one.outcome is Outcome.INFO and one.ended.at > last)
    return next(failed, None) if len(deployment.of(Role.DECODE)) == 1 else None


def excused(check: Check, history: History) -> Check:
    """The check, made unknown if it is invalid and the death of a process may be the cause."""
    if not history.died or check.verdict is not Verdict.INVALID or check.name in _STAYING:
        return check
    why = "this is no evidence against the deployment, because a process that the harness started died (see processes)"
    return replace(check, verdict=Verdict.UNKNOWN, summary=f"{check.summary}; {why}")
