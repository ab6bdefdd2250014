"""Whether NIXL moved exactly the bytes of the prompts' blocks."""

from collections.abc import Iterator

from harness.checkers.evidence import Evidence, counter_check, nothing_moved
from harness.checkers.gathering import gather
from harness.checkers.unknown_facts import excused_by_unknown_kv_dtype
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Check, Comparison, Verdict


def nixl_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes and reads are as predicted. Too few bytes mean a lost block, too many a read beyond the end of a region."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(deployment, one))
    moved, reads = (sum(one.delta.of(name) or 0 for one in evidence) for name in ("nixl_bytes", "nixl_transfers"))
    right = f"NIXL moved {moved:,} bytes in {reads:,} reads, as predicted"
    check = counter_check("nixl_bytes", evidence, comparisons, right)
    if check.verdict is Verdict.VALID and not moved and not reads:
        return nothing_moved(check, history, "no request needed a transfer by NIXL, and NIXL moved nothing")
    return check


def _compared(deployment: Deployment, evidence: Evidence) -> Iterator[Comparison]:
    yield excused_by_unknown_kv_dtype(evidence.compare("nixl_bytes"), deployment)
    yield evidence.compare("nixl_transfers")
