"""Teacher forcing of outputs, control outputs and probes; and references, for outputs that need one as well."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from harness.history import History, Operation
from harness.scenario import Condition, Purpose, Request
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import asked_about, can_be_forced, completed, needs_reference
from harness.verify.asking.requests import reference

_FIRST = 16
"""Outputs that are forced first. If none of them shows noise, no control requests are made."""
_DOUBTS = 256
"""Doubted probes that are teacher-forced, at most. If more are doubted, these are enough for a verdict."""


def first_forced(verification: Verification, history: History) -> Phases:
    """Forces a few outputs, to see whether there is any noise."""
    return _forced(verification, history, verification.drawn(history)[:_FIRST], ())


def forced(verification: Verification, history: History) -> Phases:
    """Forces the outputs that the policy picks, control outputs and retries, mixed so that they share batches."""
    others = completed(history, Purpose.CONTROL, Purpose.RETRY)
    return _forced(verification, history, verification.picked(history), others)


def answers_forced(verification: Verification, history: History) -> Phases:
    """Forces control outputs and retries alone: what is left of a budget is kept for outputs that look wrong."""
    return _forced(verification, history, (), completed(history, Purpose.CONTROL, Purpose.RETRY))


def doubts_forced(verification: Verification, history: History, doubted: Collection[str]) -> Phases:
    """Forces probes that nothing else can verify; ``doubted``: their request ids."""
    probes = [o for o in completed(history, Purpose.PROBE) if o.request.request_id in doubted]
    return _forced(verification, history, (), probes[:_DOUBTS], name="doubts")


def _forced(
    verification: Verification,
    history: History,
    outputs: Sequence[Operation],
    others: Sequence[Operation],
    name: str = "teacher",
) -> Phases:
    """Forces the operations that were not forced before; those of outputs that look strange are marked."""
    done = asked_about(history, Purpose.FORCING)
    new = [[o for o in side if o.request.request_id not in done] for side in (outputs, others)]
    strange = {o.request.request_id for o in verification.suspects(history)}
    asked = (request for o in _interleaved(*new) for request in _asked_about(verification, o, strange))
    marked = (replace(one, condition=Condition.SUSPECT) if one.about in strange else one for one in asked)
    return verification.phase(name, marked, history)


def _asked_about(verification: Verification, operation: Operation, strange: Collection[str]) -> Iterator[Request]:
    """The forcings of an operation, and its reference if it needs one: a budget that ends cuts off both or neither.

    An output that is forced because it looks strange has no reference: its KV is in doubt, not what was sent.
    """
    forced_alone = operation.request.request_id in strange and can_be_forced(operation)
    if operation.request.of_load and needs_reference(operation) and not forced_alone:
        salt, route = verification.how.salt, verification.forcing_route
        yield reference(operation.request, salt=salt, route=route)
    if can_be_forced(operation):
        yield from verification.forcings(operation)


def _interleaved(one: Sequence[Operation], other: Sequence[Operation]) -> list[Operation]:
    """Both lists, mixed evenly in proportion to their lengths."""
    places = [(index / len(side), operation) for side in (one, other) for index, operation in enumerate(side)]
    return [operation for _, operation in sorted(places, key=lambda place: place[0])]
