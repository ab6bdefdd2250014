"""Whether the offload tier was given, and gave back, the bytes that it should.

Two things make a prediction too strict, and the engine counts both: a store that the tier refused because transfers
in flight pinned all of it, and a preemption, after which a request may find its own prompt in the tier and load it.
They widen the bounds of a comparison that fails, by as much as they can explain.
"""

from collections.abc import Iterator
from dataclasses import replace

from harness.checkers.evidence import Evidence, first_problem, gather, nothing_moved
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Bounds, Check, Comparison, Verdict, worst

_LOAD, _STORE = "offload_load_bytes", "offload_store_bytes"


def offload_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes loaded and stored as predicted, and the older families in agreement with the newer."""
    evidence = gather(deployment, history)
    comparisons = tuple(comparison for one in evidence for comparison in _compared(one))
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
        newer, legacy = evidence.delta.of(name), evidence.delta.of(f"{name}_legacy")
        # Only vLLM's own CPU tier keeps the older families; another spec's absence of them is no fault.
        if newer is not None and legacy is not None:
            yield evidence.comparison(f"{name}_legacy", Bounds.exactly(int(newer)), legacy)


def _with_refusals(evidence: Evidence, comparison: Comparison) -> Comparison:
    refused = evidence.delta.of("offload_refused")
    if comparison.verdict is not Verdict.INVALID or comparison.expected is None or not refused:
        return comparison
    return replace(comparison, expected=Bounds(0, comparison.expected.high))


def _with_preemptions(evidence: Evidence, comparison: Comparison) -> Comparison:
    """Each time a request is preempted it may find what the tier holds of it, and not more."""
    preempted, expected = evidence.delta.of("preemptions"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not preempted:
        return comparison
    reloaded = int(preempted) * evidence.expectation.reload_bytes
    why = f"{preempted:,} preemptions happened, after each of which a prompt may be read back from the tier"
    return replace(comparison, expected=Bounds(expected.low, expected.high + reloaded), why_unknown=why)
