"""Whether everything that the harness had started was still running when the run ended.

A server or a proxy that the harness started and that died (for want of memory, killed by somebody, by a fault of its
own) fails whatever is asked of it from then on, and what other servers hold for it. None of this tells anything about
the transfer of KV: what would be invalid is unknown, and the process's last words are quoted. Outputs that are wrong
are wrong all the same.
"""

from dataclasses import replace

from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, Finding, Verdict

_JUDGED = ("outputs", "salts")
"""Checks of what was answered: an answer that was given does not depend on who died."""


def processes(deployment: Deployment, history: History) -> Check:  # noqa: ARG001 - checkers share one signature
    """Nothing that the harness started died."""
    if not history.died:
        return Check("processes", Verdict.VALID, "everything that the harness started ran to the end")
    findings = tuple(Finding(one.name, one.text) for one in history.died)
    summary = "; ".join(one.text for one in history.died)
    return Check("processes", Verdict.UNKNOWN, f"during the run {summary}", findings=findings)


def excused(check: Check, history: History) -> Check:
    """The check as it is, or unknown where what it found wrong may come of a process that died."""
    if not history.died or check.verdict is not Verdict.INVALID or check.name in _JUDGED:
        return check
    why = "no evidence against the deployment, since a process that the harness had started died (see processes)"
    return replace(check, verdict=Verdict.UNKNOWN, summary=f"{check.summary}; {why}")
