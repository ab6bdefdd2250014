"""How a run's faults widen what its counters may show.

For a request that failed, the oracle already has bounds between nothing and all of it. A fault does more than that:

- Blocks that the oracle thinks cached may be gone, or may have been kept by a request that was cut. So predictions hold
  for whichever blocks were evicted, on every server, in every run with faults.
- A transfer may fail, and decode compute the prompt itself (``kv_load_failure_policy`` recompute): what was to be
  received may be computed instead. Such a request is looked up in the caches once more (vLLM 0.32).
- A process that was restarted counts from zero: see incarnations.py.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from harness.checkers.by_phase import by_phase
from harness.checkers.incarnations import restarted
from harness.checkers.windows import during, windows
from harness.facts import Deployment, Role
from harness.history import Ending, History, Operation, Tolerated
from harness.oracle import PREDICTED, PhaseKey, ServerExpectation
from harness.scenario import Request, Route
from harness.verdict import Bounds

_RECEIVED = ("external_kv_transfer", "external_hits", "nixl_bytes", "nixl_transfers", "local_cache_hit", "prefix_hits")
"""What a decode server counts less of if a transfer fails."""
_LOOKED_UP = ("prefix_queries", "external_queries")
"""What it counts more of if it then computes the prompt itself: the request is scheduled anew, from its first token."""
_UNKNOWN = 2**31
"""More tokens than any prompt has."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the faults of one phase may have done to the servers that are taken together."""

    restarted: bool = False
    """Whether one of several servers of a role counts from zero."""
    transfers_failed: int = 0
    """Most transfers that may have failed, or requests that may have expired."""
    tokens: int = 0
    """Prompt tokens of these requests."""
    why: str = ""
    left: int = 0
    """Requests whose clients left as planned: their transfers may fail, and prefill frees their blocks at the lease's
    end. The oracle's bounds allow for all else that such a request does or leaves undone."""

    def widen(self, expectation: ServerExpectation, role: Role) -> ServerExpectation:
        """The expectation with the bounds that hold under these faults."""
        bounds = {name: getattr(expectation, name) for name in PREDICTED}
        if self.transfers_failed and role is Role.DECODE:
            computed, received = bounds["local_compute"], bounds["external_kv_transfer"]
            bounds["local_compute"] = Bounds(computed.low, computed.high + min(received.high, self.tokens))
            bounds |= {name: Bounds(0, bounds[name].high) for name in _RECEIVED}
            looked_up = {name: bounds[name] for name in _LOOKED_UP}
            bounds |= {name: Bounds(one.low, one.high + min(one.high, self.tokens)) for name, one in looked_up.items()}
        if self.restarted:
            bounds = {name: Bounds(0, one.high) for name, one in bounds.items()}
        widened = replace(expectation, **bounds)
        return widened.because(self.why) if self.why else widened


def faulted_servers(deployment: Deployment, history: History) -> Collection[str]:
    """The servers whose caches a fault of the run may have changed: all of them, as soon as one fault began."""
    begun = any(window.began is not None for window in windows(history))
    return {server.name for server in deployment.servers} if begun else ()


def allowance(deployment: Deployment, history: History, phase: PhaseKey, key: str) -> Allowance:
    """What faults may have done in a phase to a server, or to all servers of a role."""
    operations = by_phase(history).operations(phase)
    found, left = during(history, operations), _left(operations)
    if not found:
        return Allowance(left=left)
    failing = [one for one in found if one.tolerates(Tolerated.FAILED_TRANSFERS)]
    hit = [one for one in operations if any(window.overlaps(one) for window in failing)] if failing else []
    may_compute = [one for one in hit if _may_have_reached_decode(deployment, one)]
    names = [server.name for server in deployment.named(key)]
    # A server that is judged by itself has bounds for what it counted since its restart.
    summed = key not in names and any(restarted(history, phase, name) for name in names)
    why = f"faults were at work: {', '.join(one.name for one in found)}"
    return Allowance(summed, len(hit), sum(map(_prompt_tokens, may_compute)), why, left)


def _left(operations: Collection[Operation]) -> int:
    return sum(one.ended.ending is Ending.LEFT for one in operations)


def _may_have_reached_decode(deployment: Deployment, operation: Operation) -> bool:
    """False if the harness's own proxy answered that it asked no decode server."""
    ended = operation.ended
    refused_before = deployment.own_proxy is True and ended.status is not None and ended.decode_server is None
    return not (refused_before and operation.request.route is Route.PROXY)


def _prompt_tokens(operation: Operation) -> int:
    """Tokens of the prompt on decode, which counts a prompt once for each choice; many, if they are not known."""
    request, usage = operation.request, operation.ended.usage
    once = usage.prompt_tokens if usage is not None else len(request.prompt) if _is_tokens(request) else _UNKNOWN
    return once * (request.sampling.n or 1)


def _is_tokens(request: Request) -> bool:
    return isinstance(request.prompt, tuple) and all(isinstance(one, int) for one in request.prompt)
