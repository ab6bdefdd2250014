"""Whether the engine counted failed transfers, or requests whose lease expired on P.

``nixl_failed_transfers`` counts failed reads, handshakes and notifications together. If a request expires on P, its
blocks may be given to other requests before D has read them. A notification *after* that means that D has read them,
possibly with another request's KV.

A late notification may be about a request of an earlier phase: P only reads notifications while it has work, so one
that arrives while P is idle is counted in the next phase. There can be at most as many late notifications as requests
expired in earlier phases of the run without one, and a run with an expired request is invalid already. Requests that
expired before the run excuse nothing: the run's warm-up ends with a request that makes P read all notifications.

During a fault of the run that may make transfers fail, as many of them may fail as requests overlapped the fault. A
request whose client left may fail or expire, in any run.

If other people use the server too, the failed transfer may belong to their requests, so the check is unknown.
"""

from collections.abc import Iterator

from harness.checkers.evidence import Evidence, counter_check
from harness.checkers.gathering import gather
from harness.facts import Deployment
from harness.history import History
from harness.observe.counters import Counters
from harness.verdict import Bounds, Check, Comparison

_NONE = Bounds(0, 0)
_COUNTED_EACH = 3
"""Times that one request's failed transfer may be counted: its handshake, its read and its notification."""
_COUNTERS = ("nixl_failed_transfers", "nixl_expired", "nixl_after_expiry")


def failed_transfers(deployment: Deployment, history: History) -> Check:
    """No failed transfer, no expired request, no notification after expiry."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(deployment, one))
    return counter_check("failed_transfers", evidence, comparisons, _right(comparisons))


def _right(comparisons: tuple[Comparison, ...]) -> str:
    """The summary if nothing is wrong; a fault of the run may have caused some."""
    failed, expired, late = (
        int(sum(one.observed or 0 for one in comparisons if one.counter == name)) for name in _COUNTERS
    )
    if not (failed or expired or late):
        return "no transfer failed and no request expired"
    late_too = f", {late:,} of them read afterwards" if late else ""
    return f"{failed:,} transfers failed and {expired:,} requests expired{late_too}, as the faults of the run explain"


def _compared(deployment: Deployment, evidence: Evidence) -> Iterator[Comparison]:
    for counter in _COUNTERS:
        grown = evidence.delta.of(counter)
        if counter == "nixl_after_expiry" and counter in evidence.delta.absent:
            # Older engines have the other two counters only.
            continue
        expected = _outstanding(evidence) if counter == "nixl_after_expiry" else _NONE
        expected += Bounds(0, _tolerated(evidence, counter))
        why = evidence.delta.why(counter)
        # The engine does not report which request failed, and does not count the prompt tokens of failed requests.
        explained = Bounds(0, int(grown)) if evidence.others is not None and grown is not None else None
        why = f"{why}{_uncounted(deployment)}" if grown is None else why
        yield evidence.comparison(counter, expected, grown, why, explained)


def _tolerated(evidence: Evidence, counter: str) -> int:
    """The most that the run's faults, and clients that left, may have added to a counter."""
    each = _COUNTED_EACH if counter == "nixl_failed_transfers" else 1
    return evidence.allowed.transfers_failed * _COUNTED_EACH + evidence.allowed.left * each


def _uncounted(deployment: Deployment) -> str:
    """Connectors whose failures may be counted elsewhere, in words."""
    every = deployment.unknown_connectors()
    names = dict.fromkeys(name for names in every.values() for name in names)
    return f", and whether a transfer of {' or '.join(names)} failed is not known" if names else ""


def _outstanding(evidence: Evidence) -> Bounds:
    """How many late notifications may still be counted for requests that expired in earlier phases of the run."""
    outstanding = map(_outstanding_on, evidence.first, evidence.before)
    return Bounds(0, sum(max(one, 0) for one in outstanding))


def _outstanding_on(first: Counters, before: Counters) -> int:
    expired = (before.nixl_expired or 0) - (first.nixl_expired or 0)
    return int(expired - (before.nixl_after_expiry or 0) + (first.nixl_after_expiry or 0))
