"""Whether all processes that the harness started were still running when the run ended.

If a server or proxy dies (out of memory, killed, or by its own fault), later requests to it fail, and so do other
servers' transfers with it. This says nothing about the correctness of KV transfer, so every invalid check becomes
unknown, and the end of the process's log is quoted. Wrong outputs remain invalid.
"""

from dataclasses import replace

from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, Finding, Verdict

_OF_ANSWERS = ("outputs", "salts")
"""Checks that stay invalid: a wrong answer is not caused by the death of a process."""


def processes(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """No process that the harness started died."""
    findings = tuple(Finding(one.name, one.text) for one in history.died)
    summary = "; ".join(one.text for one in history.died)
    return Check("processes", Verdict.UNKNOWN, f"during the run {summary}", findings=findings)


def excused(check: Check, history: History) -> Check:
    """The check, made unknown if it is invalid and the death of a process may be the cause."""
    if not history.died or check.verdict is not Verdict.INVALID or check.name in _OF_ANSWERS:
        return check
    why = "this is no evidence against the deployment, because a process that the harness started died (see processes)"
    return replace(check, verdict=Verdict.UNKNOWN, summary=f"{check.summary}; {why}")
