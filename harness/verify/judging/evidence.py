"""What a history holds about its outputs: which are judged, what they were compared with, and how they came out."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from harness.history import Decoding, History, NoiseMeasured, NoisyOutput, Operation, Outcome
from harness.memo import once
from harness.scenario import Condition, Purpose, Request, Route
from harness.verify.judging.beside_reference import judge_with_reference
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.ends import Ends, ends_of, with_end
from harness.verify.judging.floor import NoiseFloor, measure_floor, quiet_floor
from harness.verify.judging.forcing import NO_IDS, Forced, force, forcings
from harness.verify.judging.gross import grossly_wrong
from harness.verify.judging.judging import judge_forced
from harness.verify.judging.many import no_chance
from harness.verify.judging.probes import (
    Damaged,
    Reading,
    damaged_prompts,
    judged_probe,
    read_probes,
    without_truth,
)
from harness.verify.judging.salts import untrusted, untrusted_forcing
from harness.verify.judging.strict import compare_with_reference

_MEANT = (Purpose.FORCING, Purpose.REFERENCE, Purpose.CONTROL)
"""Purposes of requests that show that an output was to be verified."""
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
    retried: tuple[tuple[Request, Compared], ...] = ()
    """Retries of wrong outputs that could be judged."""

    @property
    def damaged(self) -> tuple[Damaged, ...]:
        """Prompts of which a cache holds wrong blocks."""
        return tuple(damaged_prompts(self.readings, self.probed))


@once
def look_at_outputs(history: History) -> OutputEvidence:
    """Everything compared that can be."""
    everything = forcings(history)
    asked = {who: found for who, found in everything.items() if not _doubted(history, found)}
    subjects, references = tuple(_subjects(history, everything)), _references(history)
    doubted = {who: why for who, one in references.items() if (why := untrusted(history, one.request.route))}
    references = {who: one for who, one in references.items() if who not in doubted}
    forced: dict[str, Beside] = {
        i: force(o, asked[i])
        if i in asked
        else f"its teacher forcing is not trusted: {_doubted(history, everything[i])}"
        for o in subjects
        if (i := o.request.request_id) in everything
    }
    ends = ends_of(history)
    judged = [one for beside in forced.values() if not isinstance(beside, str) for one in beside]
    readings = read_probes(history, asked)
    probed = [one.beside for one in readings if one.beside is not None]
    floor = _floor(history, asked, [*judged, *probed]) if forced else None
    gross = isinstance(floor, str) and bool(_controls_doubted(history))
    compared = tuple(
        _believed(
            _compare(
                o,
                forced.get(i := o.request.request_id),
                floor,
                references.get(i),
                _Known(ends, asked.get(i, []), gross),
            ),
            doubted,
        )
        for o in subjects
    )
    if isinstance(floor, NoiseFloor) and any(one.doubt for one in compared):
        controls = [*_earlier(history), *_own_control(history, asked)]
        compared = tuple(_together(compared, no_chance(judged, controls, floor.near)))
    drifts = all(one.tokens and one.mean_drift == one.mean_drift for one in judged)
    said = tuple(_compare_probe(reading, floor) for reading in readings)
    retried = tuple(_retried(history, asked, floor, ends)) if floor is not None else ()
    return OutputEvidence(compared, floor, with_drift=drifts, readings=readings, probed=said, retried=retried)


def _together(compared: Sequence[Compared], why: str) -> Iterator[Compared]:
    """Doubtful outputs are wrong where so many of them are no noise, and ``why`` says so."""
    for one in compared:
        right = one.match in (Match.EXACT, Match.TIE)
        yield (
            replace(one, match=Match.MISMATCH, text=f"{one.doubt}; {why}", doubt="")
            if why and right and one.doubt
            else one
        )


def _retried(
    history: History, asked: dict[str, list[Operation]], floor: NoiseFloor | str, ends: Ends
) -> Iterator[tuple[Request, Compared]]:
    for operation in history.operations():
        if operation.request.purpose is not Purpose.RETRY or operation.outcome is not Outcome.OK:
            continue
        known = asked.get(operation.request.request_id, ())
        beside = force(operation, known)
        if not isinstance(beside, str):
            yield operation.request, with_end(operation, judge_forced(operation, beside, floor), ends, known)


def _compare_probe(reading: Reading, floor: NoiseFloor | str | None) -> Compared:
    if reading.beside is None or floor is None:
        return without_truth(reading)
    return judged_probe(reading, judge_forced(reading.probe, (reading.beside,), floor))


def _doubted(history: History, asked: Sequence[Operation]) -> str:
    """Why forcings may have read the KV that they are to judge; empty where they cannot."""
    return next(filter(None, (untrusted_forcing(history, route) for route in {o.request.route for o in asked})), "")


def _controls_doubted(history: History) -> str:
    """Why control requests, this run's or an earlier one's on the same deployment, may have read transferred KV."""
    return untrusted(history, Route.DECODE)


def _believed(compared: Compared, doubted: Mapping[str | None, str]) -> Compared:
    """Right in all but what its reference was asked for is not verified; ``doubted``: references, and why."""
    why = doubted.get(compared.request_id)
    if why is None or compared.match is Match.MISMATCH:
        return compared
    return Compared(compared.request_id, Match.UNVERIFIED, f"its reference may have been answered from a cache: {why}")


def control_outputs(history: History) -> tuple[NoisyOutput, ...]:
    """What this run's own control requests show, to be kept for later runs; nothing where they are not trusted.

    The first of them only, whose prompts were drawn at random: those that were made because an output looked wrong are
    of the noisiest prompts.
    """
    if _controls_doubted(history):
        return ()
    found = _own_control(history, forcings(history), not_random=_of_suspects(history))
    arrays = ([one.regret, one.drift, one.margin_error, one.margin] for one in found)
    return tuple(NoisyOutput(*(tuple(array.tolist()) for array in four)) for four in arrays)


def _of_suspects(history: History) -> set[str]:
    """Control requests for outputs that looked wrong: request ids."""
    return {o.request.request_id for o in history.operations() if o.request.condition is Condition.SUSPECT}


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
    if (shifted := _shifted(history)) and any(one.regret.any() for one in judged):
        return shifted
    if why := _controls_doubted(history):
        # Whose outputs show no noise at all is right beside any control requests, trusted or not.
        quiet = quiet_floor(judged)
        return quiet if isinstance(quiet, NoiseFloor) else f"the control requests may have read transferred KV: {why}"
    earlier = list(_earlier(history))
    if not earlier and not any(_control(history)):
        return quiet_floor(judged)
    return measure_floor([*earlier, *_own_control(history, asked)], judged)


def _shifted(history: History) -> str:
    """Why tokens behind the best are no fault and no noise; empty where they are."""
    names = sorted({name for entry in history.of(Decoding) for name in entry.shifted_by})
    if not names:
        return ""
    return (
        f"--extra-body sets {', '.join(names)}: the servers choose other tokens than those that they find best, and "
        "teacher forcing cannot tell whether these are right"
    )


def _subjects(history: History, asked: dict[str, list[Operation]]) -> Iterator[Operation]:
    """Completed requests of the path under test, and whatever else was meant to be verified."""
    meant = {o.request.about for o in history.operations() if o.request.purpose in _MEANT} | set(asked)
    for operation in history.operations():
        request = operation.request
        tested = request.route is Route.PROXY or request.request_id in meant
        if tested and request.of_load and operation.outcome is Outcome.OK:
            yield operation


def _references(history: History) -> dict[str | None, Operation]:
    """Decoded again, and not on the control arm's route, whose outputs are noise's measure and nobody's truth."""
    return {o.request.about: o for o in history.operations() if o.request.purpose is Purpose.REFERENCE}


def _control(history: History) -> Iterator[Operation]:
    return (operation for operation in history.operations() if operation.request.purpose is Purpose.CONTROL)


def _good(operation: Operation, beside: Beside) -> tuple[Forced, ...]:
    return () if isinstance(beside, str) or operation.outcome is not Outcome.OK else beside


class _Known(NamedTuple):
    """What else an output is judged by."""

    ends: Ends
    """What tells whether it ended where it had to."""
    forcings: Sequence[Operation]
    gross: bool
    """Whether damage beyond all noise is told without a floor."""


def _compare(
    operation: Operation,
    beside: Beside | None,
    floor: NoiseFloor | str | None,
    reference: Operation | None,
    known: _Known,
) -> Compared:
    if known.gross and isinstance(beside, tuple) and (wrong := grossly_wrong(operation, beside)):
        return wrong
    who = operation.request.request_id
    if isinstance(beside, tuple) and floor is not None:
        judged = with_end(operation, judge_forced(operation, beside, floor), known.ends, known.forcings)
        return judged if reference is None else judge_with_reference(operation, reference, judged, floor)
    if reference is not None:
        return compare_with_reference(operation, reference)
    if isinstance(beside, str):
        return Compared(who, Match.UNVERIFIED, beside)
    if not any(choice.token_ids for choice in operation.ended.choices):
        return Compared(who, Match.UNVERIFIED, NO_IDS)
    return Compared(who, Match.UNSAMPLED, "it has no reference")
