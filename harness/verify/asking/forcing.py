"""Teacher forcing of outputs, of control outputs and of probes, and the references that some outputs need beside it."""

from collections.abc import Collection, Sequence

from harness.history import History, Operation
from harness.scenario import Purpose
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import asked_about, can_be_forced, completed, needs_reference
from harness.verify.asking.requests import reference

_FIRST = 16
"""Outputs that are forced before any control request is made: where none of them shows any noise, none is made."""
_DOUBTS = 256
"""Probes that are teacher-forced themselves; where more are in doubt, enough is wrong to tell."""


def first_forced(verification: Verification, history: History) -> Phases:
    """Some outputs, to see whether noise matters at all."""
    return _forced(verification, history, verification.picked(history)[:_FIRST], ())


def forced(verification: Verification, history: History) -> Phases:
    """The outputs that the policy picks, control outputs and retries.

    They are mixed in proportion, so that outputs and control outputs are forced in the same batches.
    """
    others = completed(history, Purpose.CONTROL, Purpose.RETRY)
    return _forced(verification, history, verification.picked(history), others)


def doubts_forced(verification: Verification, history: History, doubted: Collection[str]) -> Phases:
    """Probes that nothing else can judge; ``doubted``: request ids."""
    probes = [o for o in completed(history, Purpose.PROBE) if o.request.request_id in doubted]
    return _forced(verification, history, (), probes[:_DOUBTS], name="doubts")


def _forced(
    verification: Verification,
    history: History,
    outputs: Sequence[Operation],
    others: Sequence[Operation],
    name: str = "teacher",
) -> Phases:
    """Those of the operations that were not forced before."""
    done, salt, route = asked_about(history, Purpose.FORCING), verification.how.salt, verification.forcing_route
    references = [reference(o.request, salt=salt, route=route) for o in outputs if needs_reference(o)]
    new = [[o for o in side if can_be_forced(o) and o.request.request_id not in done] for side in (outputs, others)]
    forcings = [request for o in interleaved(*new) for request in verification.forcings(o)]
    return verification.phase(name, [*references, *forcings], history)


def interleaved(one: Sequence[Operation], other: Sequence[Operation]) -> list[Operation]:
    """Both in proportion, from beginning to end."""
    places = [(index / len(side), operation) for side in (one, other) for index, operation in enumerate(side)]
    return [operation for _, operation in sorted(places, key=lambda place: place[0])]
