"""Whether the offload tier was given, and gave back, the bytes that it should.

Two things make a prediction too strict, and the engine counts both: a store that the tier refused because transfers
in flight pinned all of it, and a preemption, after which a request may find its own tokens in the tier and load them:
at most those of the longest request of the phase, as often as any was preempted. They widen a comparison that fails;
they do not hide one that holds.
"""

from collections.abc import Iterator
from dataclasses import replace

from harness.checkers.evidence import Evidence, first_problem, gather
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Bounds, Check, Comparison, Verdict, worst

_LOAD, _STORE = "offload_load_bytes", "offload_store_bytes"


def offload_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes loaded and stored as predicted, and the older families in agreement with the newer."""
    evidence = gather(deployment, history)
    comparisons = tuple(
        comparison for one in evidence for comparison in _compared(one, _longest(deployment, history, one))
    )
    loaded, stored = (sum(one.delta.of(name) or 0 for one in evidence) for name in (_LOAD, _STORE))
    problem = first_problem(comparisons)
    summary = problem or f"the offload tier was given {stored:,} bytes and gave back {loaded:,}, as predicted"
    if not evidence:
        summary = "no phase was counted: there is no reading of the servers' counters"
    return Check("offload_bytes", worst(comparison.verdict for comparison in comparisons), summary, comparisons)


def _longest(deployment: Deployment, history: History, evidence: Evidence) -> int | None:
    """Bytes of the whole blocks of the phase's longest request; None where they cannot be told."""
    operations = history.operations(scenario=evidence.scenario, phase=evidence.phase)
    tokens = [len(o.prompt_token_ids or ()) + o.request.sampling.max_tokens for o in operations]
    sizes = [one.block_size for one in deployment.of(evidence.role) if one.block_size is not None]
    told = all(o.prompt_token_ids is not None for o in operations)
    if not (tokens and sizes and told and deployment.geometry):
        return None
    return max(max(tokens) // size * deployment.geometry.block_bytes(size) for size in sizes)


def _compared(evidence: Evidence, longest: int | None) -> Iterator[Comparison]:
    yield _with_preemptions(evidence, evidence.compare(_LOAD), longest)
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


def _with_preemptions(evidence: Evidence, comparison: Comparison, longest: int | None) -> Comparison:
    preempted, expected = evidence.delta.of("preemptions"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not preempted:
        return comparison
    if longest is not None and (comparison.observed or 0) > expected.high:
        return replace(comparison, expected=Bounds(expected.low, expected.high + int(preempted) * longest))
    why = f"{preempted:,} preemptions happened, after which prompts may be read back from the tier"
    return replace(comparison, expected=None, why_unknown=why)
