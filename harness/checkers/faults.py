"""Whether each planned fault was caused, was observed to have taken hold, was healed, and was recovered from.

A fault that did nothing tests nothing: without evidence the check is unknown, whatever else is right. A deployment that
serves no request within a minute after the fault was undone has not recovered, which is evidence against it; so are
requests that a server left hanging when it was asked to end (drained.py).

A fault may have been meant to provoke something, such as a failed transfer (``FaultPlanned.provokes``). If no server
counted that in its phase, the run did not test it, and the check is unknown.
"""

from harness.checkers.drained import SILENT_S, left_hanging
from harness.checkers.gathering import gather
from harness.checkers.windows import RECOVERY_S, Window, windows
from harness.facts import Deployment
from harness.history import FaultPlanned, History, Operation
from harness.verdict import Check, Finding, Verdict, worst


def faults(deployment: Deployment, history: History) -> Check:
    """Every fault took hold, was healed, and the deployment recovered."""
    judged = [(window, *_judged(deployment, window, history)) for window in windows(history)]
    bad = [(window, verdict, text) for window, verdict, text in judged if verdict is not Verdict.VALID]
    findings = tuple(Finding(window.name, text, server=_server(deployment, window)) for window, _, text in bad)
    verdict = worst(verdict for _, verdict, _ in judged)
    first = next((text for _, found, text in bad if found is verdict), "")
    name = next((window.name for window, found, _ in bad if found is verdict), "")
    return Check(
        "faults", verdict, f"{name}: {first}" if first else _all_well([one[0] for one in judged]), (), findings
    )


def _server(deployment: Deployment, window: Window) -> str | None:
    names = {server.name for server in deployment.servers}
    return window.planned.target if window.planned.target in names else None


def _judged(deployment: Deployment, window: Window, history: History) -> tuple[Verdict, str]:
    if window.began is None:
        return Verdict.UNKNOWN, "the load ended before the fault was to begin: send more requests, or begin it earlier"
    if not window.evidence:
        return Verdict.UNKNOWN, window.text or "the history does not say that the fault took hold"
    if hung := left_hanging(deployment, history, window):
        return Verdict.INVALID, _hanging(window, hung)
    if not window.healed:
        return Verdict.UNKNOWN, f"it was not undone: {window.text or 'the history ends before'}"
    if window.recovered_after is None:
        return _not_recovered(window, history)
    return _provoked(deployment, window.planned, history)


def _provoked(deployment: Deployment, planned: FaultPlanned, history: History) -> tuple[Verdict, str]:
    if not planned.provokes:
        return Verdict.VALID, ""
    phase = planned.scenario, planned.phase
    found = (one for one in gather(deployment, history) if (one.scenario, one.phase) == phase)
    if any((one.delta.of(planned.provokes) or 0) > 0 for one in found):
        return Verdict.VALID, ""
    return Verdict.UNKNOWN, f"no server counted what the fault was to provoke ({planned.provokes})"


def _hanging(window: Window, hung: list[Operation]) -> str:
    many = "1 request" if len(hung) == 1 else f"{len(hung):,} requests"
    return (
        f"{window.planned.target} left {many} without a token, an error or an end for {SILENT_S:.0f} s or more after "
        f"SIGTERM, until it was killed; the first is {hung[0].request.request_id}"
    )


def _not_recovered(window: Window, history: History) -> tuple[Verdict, str]:
    healed_at = window.healed_at or 0.0
    later = [one for one in history.operations() if one.request.of_load and one.sent.at >= healed_at]
    if not later:
        return Verdict.UNKNOWN, "no request was sent after the fault was undone, so that nobody knows if it recovered"
    text = f"none of {len(later):,} requests that were sent after the fault was undone completed"
    if any(_had_its_time(one, healed_at) for one in later):
        return Verdict.INVALID, f"{text}: the deployment did not recover within {RECOVERY_S:.0f} s"
    return Verdict.UNKNOWN, f"{text}, and none was sent later than the deployment may take to recover"


def _had_its_time(operation: Operation, healed_at: float) -> bool:
    """Whether the request was sent when the deployment must have recovered, and failed by the deployment's fault."""
    return operation.sent.at >= healed_at + RECOVERY_S / 2 and operation.ended.status is not None


def _all_well(found: list[Window]) -> str:
    slowest = max((one.recovered_after or 0.0 for one in found), default=0.0)
    plural = "fault was" if len(found) == 1 else "faults were"
    return f"{len(found)} {plural} observed and undone; the deployment recovered within {slowest:.1f} s"
