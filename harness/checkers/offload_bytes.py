"""Whether the bytes stored in and loaded from the offload tier are as predicted.

The engine counts two events that make predictions too strict. Each widens the bounds of a comparison that fails by as
much as the event can explain:

- The tier refuses a store if transfers in flight pin all of it. ``vllm:kv_offload_allocation_failure`` counts refused
  offers (0.32, offloading/scheduler.py: each ``prepare_store`` that returns None). An offer belongs to one request and
  is refused as a whole; the request repeats it with its next step. So at most as many requests as refusals stored
  nothing.
- After a preemption, a request may find its own prompt in the tier and load it.
"""

from collections.abc import Iterator
from dataclasses import replace

from harness.checkers.evidence import Evidence, counter_check, nothing_moved
from harness.checkers.gathering import gather
from harness.checkers.unknown_facts import excused_by_unknown_kv_dtype
from harness.facts import Deployment
from harness.history import History
from harness.verdict import Bounds, Check, Comparison, Verdict

_LOAD, _STORE = "offload_load_bytes", "offload_store_bytes"


def offload_bytes(deployment: Deployment, history: History) -> Check:
    """Bytes loaded and stored are as predicted, and the older metric families agree with the newer ones."""
    evidence = gather(deployment, history)
    comparisons = tuple(excused_by_unknown_kv_dtype(each, deployment) for one in evidence for each in _compared(one))
    loaded, stored = (sum(one.delta.of(name) or 0 for one in evidence) for name in (_LOAD, _STORE))
    right = f"{stored:,} bytes were stored in the offload tier and {loaded:,} loaded from it, as predicted"
    check = counter_check("offload_bytes", evidence, comparisons, right)
    if check.verdict is Verdict.VALID and not loaded and not stored:
        return nothing_moved(check, history, "no prompt had blocks for the offload tier, and nothing was stored in it")
    return check


def _compared(evidence: Evidence) -> Iterator[Comparison]:
    yield _with_preemptions(evidence, evidence.compare(_LOAD))
    yield _with_refusals(evidence, evidence.compare(_STORE))
    for name in (_LOAD, _STORE):
        older = f"{name}_legacy"
        newer, legacy = evidence.delta.of(name), evidence.delta.of(older)
        # Only vLLM's own CPU tier has the older families.
        if older not in evidence.delta.absent:
            expected = None if newer is None else Bounds.exactly(int(newer))
            yield evidence.comparison(older, expected, legacy, evidence.delta.why(older) or evidence.delta.why(name))


def _with_refusals(evidence: Evidence, comparison: Comparison) -> Comparison:
    """Each refused offer may have kept the chunks of one request out of the tier."""
    refused, expected = evidence.delta.of("offload_refused"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not refused:
        return comparison
    missing = int(refused) * evidence.expectation.largest_store
    why = f"the tier refused {refused:,} stores, each of which may have held all chunks of a prompt"
    return _widened(comparison, missing, 0, why)


def _with_preemptions(evidence: Evidence, comparison: Comparison) -> Comparison:
    """After each preemption a request may load its own chunks from the tier."""
    preempted, expected = evidence.delta.of("preemptions"), comparison.expected
    if comparison.verdict is not Verdict.INVALID or expected is None or not preempted:
        return comparison
    reloaded = int(preempted) * evidence.expectation.reload_bytes
    why = f"there were {preempted:,} preemptions, after each of which a prompt may have been loaded from the tier"
    return _widened(comparison, 0, reloaded, why)


def _widened(comparison: Comparison, fewer: int, more: int, why: str) -> Comparison:
    def wider(bounds: Bounds | None) -> Bounds | None:
        return Bounds(max(bounds.low - fewer, 0), bounds.high + more) if bounds else None

    expected, explained = wider(comparison.expected), wider(comparison.explained)
    widened = replace(comparison, expected=expected, explained=explained)
    return widened if widened.verdict is Verdict.UNKNOWN else replace(widened, why_unknown=why)
