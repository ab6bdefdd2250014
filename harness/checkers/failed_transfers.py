"""Whether the engine itself counted a transfer that failed, or blocks that nobody fetched in time.

``nixl_failed_transfers`` holds failed reads, handshakes and notifications together. An expired request on P means
that its blocks were given to others while D might still have wanted them; a notification *after* that means that D
did read them, whoever they then belonged to.

A late notification need not be of this phase's requests. P looks for notifications only while it has something to
do, so one that comes while P is idle is counted when the next request wakes it: in the next phase. At most as many can
come so as expired in the run's phases before without a notification counted for them; and where one expired, the run is
invalid already. What had expired before the run excuses nothing: its warm-up ends by waking P.

Where somebody else asks the server, too, the transfer may have been one of theirs: unknown.
"""

from collections.abc import Iterator

from harness.checkers.evidence import Evidence, first_problem, gather
from harness.facts import Deployment
from harness.history import History
from harness.observe.counters import Counters
from harness.verdict import Bounds, Check, Comparison, worst

_NONE = Bounds(0, 0)
_COUNTERS = ("nixl_failed_transfers", "nixl_expired", "nixl_after_expiry")


def failed_transfers(deployment: Deployment, history: History) -> Check:
    """No failed transfer, no expired request, no notification after expiry."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(deployment, one))
    summary = first_problem(comparisons) or "no transfer failed and no request expired"
    if not evidence:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("failed_transfers", worst(comparison.verdict for comparison in comparisons), summary, comparisons)


def _compared(deployment: Deployment, evidence: Evidence) -> Iterator[Comparison]:
    for counter in _COUNTERS:
        grown = evidence.delta.of(counter)
        if counter == "nixl_after_expiry" and counter in evidence.delta.absent:
            # Younger than the other two: engines without it are judged by those.
            continue
        expected = _outstanding(evidence) if counter == "nixl_after_expiry" else _NONE
        why = evidence.delta.why(counter)
        # Whose transfer failed is not told, and what fails is not counted as anybody's prompt.
        explained = Bounds(0, int(grown)) if evidence.others is not None and grown is not None else None
        why = f"{why}{_unknown(deployment)}" if grown is None else why
        yield evidence.comparison(counter, expected, grown, why, explained)


def _unknown(deployment: Deployment) -> str:
    """Whose failures may be counted elsewhere."""
    every = deployment.unknown_connectors()
    names = dict.fromkeys(name for names in every.values() for name in names)
    return f", and whether a transfer of {' or '.join(names)} failed is not known" if names else ""


def _outstanding(evidence: Evidence) -> Bounds:
    """How many notifications may still come for requests that expired in the run's phases before."""
    owed = map(_owed, evidence.first, evidence.before)
    return Bounds(0, sum(max(one, 0) for one in owed))


def _owed(first: Counters, before: Counters) -> int:
    expired = (before.nixl_expired or 0) - (first.nixl_expired or 0)
    return int(expired - (before.nixl_after_expiry or 0) + (first.nixl_after_expiry or 0))
