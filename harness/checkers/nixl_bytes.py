"""Whether NIXL moved the bytes that the prompts have, and no others."""

from collections.abc import Iterator

from harness.checkers.evidence import Evidence, first_problem, gather, nothing_moved
from harness.checkers.untold_type import excused_by_untold_type
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, Comparison, worst


def nixl_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes exactly as predicted: too few is a lost block, too many a region read beyond its end."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(deployment, one))
    moved, reads = (sum(one.delta.of(name) or 0 for one in evidence) for name in ("nixl_bytes", "nixl_transfers"))
    problem = first_problem(comparisons)
    summary = problem or f"NIXL moved {moved:,} bytes in {reads:,} reads, as predicted"
    verdict = worst(comparison.verdict for comparison in comparisons)
    if evidence and not problem and not moved and not reads:
        verdict, summary = nothing_moved(history, "no request needed NIXL to move anything, and it moved nothing")
    if not evidence:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("nixl_bytes", verdict, summary, comparisons)


def _compared(deployment: Deployment, evidence: Evidence) -> Iterator[Comparison]:
    moved = evidence.compare("nixl_bytes")
    # What the harness launched tells its types, all of them.
    yield moved if deployment.launched else excused_by_untold_type(moved, deployment.servers)
    yield evidence.compare("nixl_transfers")
