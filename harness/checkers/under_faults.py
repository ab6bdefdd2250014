"""How a run's faults widen what its counters may show.

For a request that failed, the oracle already has bounds between nothing and all of it. A fault does more than that:

- Blocks that the oracle thinks cached may be gone, or may have been kept by a request that was cut. So predictions hold
  for whichever blocks were evicted, on every server, in every run with faults.
- A transfer may fail, and decode compute the prompt itself (``kv_load_failure_policy`` recompute): what was to be
  received may be computed instead.
- A process that was restarted counts from zero. Its counters then show what it did since, which is at most what the
  phase's requests need.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from harness.checkers.by_phase import by_phase
from harness.checkers.windows import Window, during, windows
from harness.facts import Deployment, Role
from harness.history import Ending, History, Operation, Tolerated
from harness.oracle import PREDICTED, PhaseKey, ServerExpectation
from harness.verdict import Bounds

_RECEIVED = ("external_kv_transfer", "external_hits", "nixl_bytes", "nixl_transfers", "local_cache_hit", "prefix_hits")
"""What a decode server counts less of if a transfer fails."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the faults of one phase may have done to one server."""

    restarted: bool = False
    transfers_failed: int = 0
    """Most transfers that may have failed, or requests that may have expired."""
    why: str = ""
    left: int = 0
    """Requests whose clients left as planned: their transfers may fail, and prefill frees their blocks at the lease's
    end. The oracle's bounds allow for all else that such a request does or leaves undone."""

    def widen(self, expectation: ServerExpectation, role: Role) -> ServerExpectation:
        """The expectation with the bounds that hold under these faults."""
        bounds = {name: getattr(expectation, name) for name in PREDICTED}
        if self.transfers_failed and role is Role.DECODE:
            computed, received = bounds["local_compute"], bounds["external_kv_transfer"]
            bounds["local_compute"] = Bounds(computed.low, computed.high + received.high)
            bounds |= {name: Bounds(0, bounds[name].high) for name in _RECEIVED}
        if self.restarted:
            bounds = {name: Bounds(0, one.high) for name, one in bounds.items()}
        widened = replace(expectation, **bounds)
        return widened.because(self.why) if self.why else widened


def faulted_servers(deployment: Deployment, history: History) -> Collection[str]:
    """The servers whose caches a fault of the run may have changed: all of them, as soon as one fault began."""
    begun = any(window.began is not None for window in windows(history))
    return {server.name for server in deployment.servers} if begun else ()


def allowance(history: History, phase: PhaseKey, servers: Collection[str]) -> Allowance:
    """What faults may have done to these servers in a phase."""
    operations = by_phase(history).operations(phase)
    found, left = during(history, operations), _left(operations)
    if not found:
        return Allowance(left=left)
    failing = [one for one in found if one.tolerates(Tolerated.FAILED_TRANSFERS)]
    overlapping = sum(any(one.overlaps(operation) for one in failing) for operation in operations) if failing else 0
    names = ", ".join(one.name for one in found)
    restarted = any(_restarted(one, servers) for one in found)
    return Allowance(restarted, overlapping, f"faults were at work: {names}", left)


def _left(operations: Collection[Operation]) -> int:
    return sum(one.ended.ending is Ending.LEFT for one in operations)


def _restarted(window: Window, servers: Collection[str]) -> bool:
    return window.tolerates(Tolerated.RESTART) and window.planned.target in servers and bool(window.evidence)
