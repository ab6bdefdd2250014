"""Whether NIXL moved the bytes that the prompts have, and no others."""

from harness.checkers.evidence import first_problem, gather, nothing_moved
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, worst


def nixl_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes exactly as predicted: too few is a lost block, too many a region read beyond its end."""
    evidence = gather(deployment, history)
    comparisons = tuple(one.compare(counter) for one in evidence for counter in ("nixl_bytes", "nixl_transfers"))
    moved, reads = (sum(one.delta.of(name) or 0 for one in evidence) for name in ("nixl_bytes", "nixl_transfers"))
    problem = first_problem(comparisons)
    summary = problem or f"NIXL moved {moved:,} bytes in {reads:,} reads, as predicted"
    verdict = worst(comparison.verdict for comparison in comparisons)
    if evidence and not problem and not moved and not reads:
        verdict, summary = nothing_moved(history, "no request needed NIXL to move anything, and it moved nothing")
    if not evidence:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("nixl_bytes", verdict, summary, comparisons)
