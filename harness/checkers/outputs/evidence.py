"""What a history holds about its outputs: which are judged, what they were compared with, and how they came out."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.checkers.memo import once
from harness.checkers.outputs.beside_reference import judge_with_reference
from harness.checkers.outputs.compared import Compared, Match
from harness.checkers.outputs.floor import NoiseFloor, measure_floor, quiet_floor
from harness.checkers.outputs.forcing import Forced, force, forcings, is_forcing
from harness.checkers.outputs.judging import judge_forced
from harness.checkers.outputs.probes import (
    Damaged,
    Reading,
    damaged_prompts,
    judged_probe,
    read_probes,
    without_truth,
)
from harness.checkers.outputs.strict import compare_with_reference
from harness.history import History, NoiseMeasured, NoisyOutput, Operation, Outcome
from harness.scenario import Inquiry, InquiryKind, Route

CONFIRMING = "confirmation"
"""How the names of the phases begin that measure suspected outputs again."""
Beside = tuple[Forced, ...] | str
"""An output's choices beside their forcing, or why there is none."""


@dataclass(frozen=True, slots=True)
class OutputEvidence:
    """One history's outputs."""

    compared: tuple[Compared, ...]
    """In the order in which the requests were sent."""
    floor: NoiseFloor | str | None
    """None where nothing was teacher-forced; else the limits, or why there are none."""
    with_drift: bool
    """Whether every forced output brought the log-probabilities that drift is told from."""
    readings: tuple[Reading, ...] = ()
    """The probes of the caches, in the order in which they were sent, and what each is judged by."""
    probed: tuple[Compared, ...] = ()
    """What each comes to."""
    retried: tuple[tuple[Inquiry, Compared], ...] = ()
    """Retries of wrong outputs that could be judged."""

    @property
    def damaged(self) -> tuple[Damaged, ...]:
        """Prompts of which a cache holds wrong blocks."""
        return tuple(damaged_prompts(self.readings, self.probed))


@once
def look_at_outputs(history: History) -> OutputEvidence:
    """Everything compared that can be."""
    asked = forcings(history)
    subjects, references = tuple(_subjects(history, asked)), _references(history)
    forced = {o.request.request_id: force(o, asked[i]) for o in subjects if (i := o.request.request_id) in asked}
    judged = [one for beside in forced.values() if not isinstance(beside, str) for one in beside]
    readings = read_probes(history, asked)
    probed = [one.beside for one in readings if one.beside is not None]
    floor = _floor(history, asked, [*judged, *probed]) if forced else None
    compared = tuple(
        _compare(operation, forced.get(operation.request.request_id), floor, references) for operation in subjects
    )
    drifts = all(one.tokens and one.mean_drift == one.mean_drift for one in judged)
    said = tuple(_compare_probe(reading, floor) for reading in readings)
    retried = tuple(_retried(history, asked, floor)) if floor is not None else ()
    return OutputEvidence(compared, floor, with_drift=drifts, readings=readings, probed=said, retried=retried)


def _retried(
    history: History, asked: dict[str, list[Operation]], floor: NoiseFloor | str
) -> Iterator[tuple[Inquiry, Compared]]:
    for operation in history.operations():
        inquiry = operation.request.inquiry
        if inquiry is None or inquiry.kind is not InquiryKind.RETRY or operation.outcome is not Outcome.OK:
            continue
        beside = force(operation, asked.get(operation.request.request_id, ()))
        if not isinstance(beside, str):
            yield inquiry, judge_forced(operation, beside, floor)


def _compare_probe(reading: Reading, floor: NoiseFloor | str | None) -> Compared:
    if reading.beside is None or floor is None:
        return without_truth(reading)
    return judged_probe(reading, judge_forced(reading.probe, (reading.beside,), floor))


def control_outputs(history: History) -> tuple[NoisyOutput, ...]:
    """What this run's own control arm shows, to be kept for later runs.

    Its first requests only, whose prompts were drawn at random: those that were made because an output looked wrong
    are of the noisiest prompts.
    """
    found = _own_control(history, forcings(history), not_random=_of_suspects(history))
    arrays = ([one.regret, one.drift, one.margin_error, one.margin] for one in found)
    return tuple(NoisyOutput(*(tuple(array.tolist()) for array in four)) for four in arrays)


def _of_suspects(history: History) -> set[str]:
    """Control requests for outputs that looked wrong: request ids."""
    return {o.request.request_id for o in history.operations() if o.sent.phase.startswith(CONFIRMING)}


def _own_control(
    history: History, asked: dict[str, list[Operation]], not_random: Collection[str] = ()
) -> Iterator[Forced]:
    for operation in _control(history):
        if operation.request.request_id in not_random:
            continue
        if found := asked.get(operation.request.request_id):
            yield from _good(operation, force(operation, found))


def _earlier(history: History) -> Iterator[Forced]:
    for measured in history.of(NoiseMeasured):
        for one in measured.outputs:
            yield Forced(*(np.array(array) for array in (one.regret, one.drift, one.margin_error, one.margin)))


def _floor(history: History, asked: dict[str, list[Operation]], judged: Sequence[Forced]) -> NoiseFloor | str:
    earlier = list(_earlier(history))
    if not earlier and not any(_control(history)):
        return quiet_floor(judged)
    return measure_floor([*earlier, *_own_control(history, asked)], judged)


def _subjects(history: History, asked: dict[str, list[Operation]]) -> Iterator[Operation]:
    """Completed requests of the path under test, and whatever else was meant to be verified."""
    meant = {o.request.reference_for for o in history.operations() if o.request.reference_for is not None} | set(asked)
    for operation in history.operations():
        request = operation.request
        tested = request.route is Route.PROXY or request.request_id in meant
        if tested and request.reference_for is None and request.inquiry is None and operation.outcome is Outcome.OK:
            yield operation


def _references(history: History) -> dict[str | None, Operation]:
    """Decoded again, and not on the control arm's route, whose outputs are noise's measure and nobody's truth."""
    return {
        o.request.reference_for: o
        for o in history.operations()
        if o.request.reference_for is not None and not is_forcing(o) and o.request.route is not Route.DECODE
    }


def _control(history: History) -> Iterator[Operation]:
    for operation in history.operations(route=Route.DECODE):
        if operation.request.reference_for is not None and not is_forcing(operation):
            yield operation


def _good(operation: Operation, beside: Beside) -> tuple[Forced, ...]:
    return () if isinstance(beside, str) or operation.outcome is not Outcome.OK else beside


def _compare(
    operation: Operation, beside: Beside | None, floor: NoiseFloor | str | None, references: dict[str | None, Operation]
) -> Compared:
    who = operation.request.request_id
    reference = references.get(who)
    if isinstance(beside, tuple) and floor is not None:
        judged = judge_forced(operation, beside, floor)
        return judged if reference is None else judge_with_reference(operation, reference, judged, floor)
    if reference is not None:
        return compare_with_reference(operation, reference)
    if isinstance(beside, str):
        return Compared(who, Match.UNVERIFIED, beside)
    return Compared(who, Match.UNSAMPLED, "it has no reference")
