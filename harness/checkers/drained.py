"""Requests that a server left hanging when it was asked to end (SIGTERM).

A server that is drained may serve what it has begun, or end it with an error. If it does neither, its clients wait
until somebody kills it: an orchestrator does so after its grace period, and without one they wait for ever.

A request was left hanging if the server did not end by itself, and the request was sent before SIGTERM, did not
complete, and got neither a token nor an end for ``SILENT_S`` after SIGTERM. So a server that goes on serving long
answers, and is killed over these, is not accused; nor is one whose clients were cut early. If blocks may have been held
under leases, of an earlier fault or of clients that had left, a request may have waited for these: then it was left
hanging only if the leases had ended for ``SILENT_S``.
"""

from collections.abc import Iterator

from harness.checkers.windows import LATE_S, Window, windows
from harness.facts import Deployment, Role, Server, serving
from harness.history import Ended, Ending, History, Operation, Outcome

SILENT_S = 15.0
"""Seconds. An engine that still works gives each running request a token in each step, which takes far less."""
_KIND = "drain"


def left_hanging(deployment: Deployment, history: History, window: Window) -> list[Operation]:
    """The requests that the drained server left hanging; empty for faults of other kinds."""
    if window.planned.fault_kind != _KIND or window.began is None or not window.evidence:
        return []
    free = max(window.began, _leases_end(history, window, window.began))
    hung = (one for one in history.operations() if _hung(one, window.began, free))
    return [one for one in hung if _on_target(deployment, window, one)]


def _leases_end(history: History, window: Window, began: float) -> float:
    """When the last lease ended under which blocks may have been held when the server was asked to end."""
    faults = (one.healed_at for one in windows(history) if one is not window and one.healed_at is not None)
    left = (one.ended.at for one in history.operations() if one.ended.ending is Ending.LEFT)
    return max((at + window.lease_s + LATE_S for at in (*faults, *left) if at <= began), default=0.0)


def _hung(operation: Operation, began: float, free: float) -> bool:
    """``free``: when the server had all blocks again that were held for others."""
    sent, ended = operation.sent, operation.ended
    if ended.outcome is Outcome.OK or not sent.at <= began <= ended.at:
        return False
    last = max((at for at in ended.token_times), default=sent.at)
    return ended.at - max(last, free) >= SILENT_S


def _on_target(deployment: Deployment, window: Window, operation: Operation) -> bool:
    """Whether the request was certainly on the drained server, or on the proxy."""
    target = window.planned.target
    return target == "proxy" or target in [one.name for one in _holding(deployment, operation.ended)]


def _holding(deployment: Deployment, ended: Ended) -> Iterator[Server]:
    """The server that had the request last, if the answer says so: decode, once the proxy asked it."""
    for role, url in ((Role.DECODE, ended.decode_server), (Role.PREFILL, ended.prefill_server)):
        index = serving(deployment.of(role), url)
        if url is not None and index is not None:
            yield deployment.of(role)[index]
            return
