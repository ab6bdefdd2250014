"""Whether the offload tier was given, and gave back, the bytes that it should.

Two things make a prediction too strict, and the engine counts both. They widen the bounds of a comparison that fails,
by as much as they can explain:

- A store that the tier refused because transfers in flight pinned all of it. ``vllm:kv_offload_allocation_failure``
  counts offers (0.32, offloading/scheduler.py: once for each ``prepare_store`` that returns None). An offer is one
  request's, and is refused whole; the request makes it again with its next step. So as many requests as there were
  refusals, at most, stored nothing.
- A preemption, after which a request may find its own prompt in the tier and load it.
"""

from collections.abc import Iterator
from dataclasses import replace

from harness.checkers.evidence import Evidence, first_problem, gather, nothing_moved
from harness.checkers.untold_type import excused_by_untold_type
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Bounds, Check, Comparison, Verdict, worst

_LOAD, _STORE = "offload_load_bytes", "offload_store_bytes"


def offload_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes loaded and stored as predicted, and the older families in agreement with the newer."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(one))
    if not deployment.launched:
        comparisons = tuple(excused_by_untold_type(comparison, deployment.servers) for comparison in comparisons)
    loaded, stored = (sum(one.delta.of(name) or 0 for one in evidence) for name in (_LOAD, _STORE))
    problem = first_problem(comparisons)
    summary = problem or f"the offload tier was given {stored:,} bytes and gave back {loaded:,}, as predicted"
    verdict = worst(comparison.verdict for comparison in comparisons)
    if evidence and not problem and not loaded and not stored:
        text = "no prompt had anything for the offload tier to keep, and it was given nothing"
        verdict, summary = nothing_moved(history, text)
    if not evidence:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("offload_bytes", verdict, summary, comparisons)


def _compared(evidence: Evidence) -> Iterator[Comparison]:
    yield _with_preemptions(evidence, evidence.compare(_LOAD))
    yield _with_refusals(evidence, evidence.compare(_STORE))
    for name in (_LOAD, _STORE):
        older = f"{name}_legacy"
        newer, legacy = evidence.delta.of(name), evidence.delta.of(older)
        # Only vLLM's own CPU tier keeps the older families; another spec's absence of them is no fault.
        if older not in evidence.delta.absent:
            expected = None if newer is None else Bounds.exactly(int(newer))
            yield evidence.comparison(older, expected, legacy, evidence.delta.why(older) or evidence.delta.why(name))


def _with_refusals(evidence: Evidence, comparison: Comparison) -> Comparison:
    """Each offer that was refused may have kept one request's chunks out of the tier, and no more."""
    refused, expected = evidence.delta.of("offload_refused"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not refused:
        return comparison
    missing = int(refused) * evidence.expectation.largest_store
    why = f"the tier refused {refused:,} offers, each of which may have been the chunks of a whole prompt"
    return _widened(comparison, missing, 0, why)


def _with_preemptions(evidence: Evidence, comparison: Comparison) -> Comparison:
    """Each time a request is preempted it may find what the tier holds of it, and not more."""
    preempted, expected = evidence.delta.of("preemptions"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not preempted:
        return comparison
    reloaded = int(preempted) * evidence.expectation.reload_bytes
    why = f"{preempted:,} preemptions happened, after each of which a prompt may be read back from the tier"
    return _widened(comparison, 0, reloaded, why)


def _widened(comparison: Comparison, fewer: int, more: int, why: str) -> Comparison:
    def wider(bounds: Bounds | None) -> Bounds | None:
        return Bounds(max(bounds.low - fewer, 0), bounds.high + more) if bounds else None

    expected, explained = wider(comparison.expected), wider(comparison.explained)
    widened = replace(comparison, expected=expected, explained=explained)
    return widened if widened.verdict is Verdict.UNKNOWN else replace(widened, why_unknown=why)
