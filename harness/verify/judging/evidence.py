"""All outputs of a history, each compared with its teacher forcing, its reference, or both."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.history import Decoding, History, Operation, Outcome
from harness.memo import once
from harness.scenario import Condition, Purpose, Request, Route
from harness.verify.judging.answer_end import EndTokens, check_end, known_end_tokens
from harness.verify.judging.compare_both import compare_unforced, compare_with_both
from harness.verify.judging.compare_forced import Bounds, compare_forced
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.control_outputs import (
    Forcings,
    controls,
    controls_of_suspects,
    earlier_controls,
    own_controls,
    why_controls_untrusted,
)
from harness.verify.judging.floor import NoiseFloor, measure_floor, own_noise, quiet_floor
from harness.verify.judging.forcing import NO_IDS, Forced, ForcingResult, compare_with_forcing, forcings
from harness.verify.judging.gross_mismatch import gross_mismatch
from harness.verify.judging.load_part import Load, asked_of, load_of
from harness.verify.judging.many_doubtful import Many, beyond_controls
from harness.verify.judging.partial import beginning_of, how_far, is_partial
from harness.verify.judging.probes import DamagedPrompt, Probe, compare_probe, damaged_prompts, read_probes
from harness.verify.judging.salts import untrusted, untrusted_forcing
from harness.verify.judging.sample import Outputs
from harness.verify.judging.unequal import proven_unequal

_VERIFYING = (Purpose.FORCING, Purpose.REFERENCE, Purpose.CONTROL)
"""If an output has a request of such a purpose, it was to be verified."""


@dataclass(frozen=True, slots=True)
class OutputEvidence:
    """The outputs of one history, compared."""

    compared: tuple[Compared, ...]
    """In the order in which the requests were sent."""
    floor: NoiseFloor | str | None
    """The noise floor, or the reason why it is not known; None if no output was teacher-forced."""
    with_logprobs: bool
    """Whether every forced output was served with log-probabilities, so that its drift is known."""
    probed: tuple[tuple[Probe, Compared], ...] = ()
    """The probes of the caches, in the order in which they were sent."""
    retried: tuple[tuple[Request, Compared], ...] = ()
    """The retries of wrong outputs that were teacher-forced."""

    @property
    def damaged(self) -> tuple[DamagedPrompt, ...]:
        """The prompts with wrong blocks in a cache."""
        return tuple(damaged_prompts(self.probed))


@dataclass(frozen=True, slots=True)
class _Basis:
    """Everything that outputs are compared with."""

    forced: Mapping[str, ForcingResult]
    """By request id, for the outputs that were teacher-forced."""
    forcings: Forcings
    """The trusted teacher forcings."""
    references: Mapping[str | None, Operation]
    """By the id of the request that they repeat."""
    floor: NoiseFloor | str | None
    ends: EndTokens
    gross: bool
    """Whether mismatches beyond all noise count although the noise floor is not known."""
    many: Many | None
    """Limits drawn from the control outputs alone, if more outputs exceed them than noise explains."""
    suspects: Collection[str]
    """Ids of outputs that were forced because they looked strange."""
    own_controls: Mapping[str, Sequence[Forced]]
    """Control outputs of the prompts of outputs that looked wrong, by the id of the output's request."""

    def bounds(self, request_id: str) -> Bounds | str | None:
        """The limits for one output."""
        if not isinstance(self.floor, NoiseFloor):
            return self.floor
        far = self.floor.far_of_suspects if request_id in self.suspects else self.floor.far
        factor = own_noise(self.own_controls.get(request_id, ()), far.usual)
        return Bounds(self.floor.near.times(factor), far.times(factor), self.many)


@once
def look_at_outputs(history: History) -> OutputEvidence:
    """Compare every output of a history that can be compared."""
    every = forcings(history)
    trusted = {who: found for who, found in every.items() if not _why_untrusted(history, found)}
    outputs = tuple(_outputs_to_verify(history, every))
    forced = {i: _force(history, o, every[i]) for o in outputs if (i := o.request.request_id) in every}
    own = [one for result in forced.values() if not isinstance(result, str) for one in result]
    probes = read_probes(history, trusted)
    basis = _basis(history, trusted, forced, [one.forced for one in probes if one.forced])
    asked = {*forced, *basis.references, *proven_unequal(history)}
    # Most outputs of a large load have no request that verifies them.
    others = _others(load_of(history))
    compared = tuple(
        _with_proof(history, _compare(history, one, basis)) if who in asked else others[who]
        for one in outputs
        for who in (one.request.request_id,)
    )
    floor = basis.floor
    bounds = Bounds(floor.near, floor.far) if isinstance(floor, NoiseFloor) else floor
    return OutputEvidence(
        compared,
        floor,
        with_logprobs=all(np.isfinite(one.drift).any() for one in own),
        probed=tuple((probe, compare_probe(probe, bounds)) for probe in probes),
        retried=tuple(_retried(history, basis)),
    )


@once
def _others(load: Load) -> dict[str, Compared]:
    return {one.request.request_id: _unasked(one) for one in load}


def _unasked(operation: Operation) -> Compared:
    """The result of an output that nothing was compared with."""
    who = operation.request.request_id
    if not operation.ended.output_tokens:
        return Compared(who, Match.UNVERIFIED, NO_IDS)
    return Compared(who, Match.LEFT_OUT, "it has no reference")


def _force(history: History, operation: Operation, candidates: Sequence[Operation]) -> ForcingResult:
    why = _why_untrusted(history, candidates)
    return f"its teacher forcing is not trusted: {why}" if why else compare_with_forcing(operation, candidates)


def _with_proof(history: History, one: Compared) -> Compared:
    """An output that is not wrong otherwise, but not bit for bit what it should be."""
    why = proven_unequal(history).get(one.request_id)
    if why is None or one.match is Match.MISMATCH:
        return one
    return replace(one, match=Match.MISMATCH, text=why, doubt="", certain=True)


def _basis(
    history: History, trusted: Forcings, forced: Mapping[str, ForcingResult], probes: Sequence[Forced]
) -> _Basis:
    suspects = _suspects(history)
    by_family: tuple[list[Forced], list[Forced]] = ([], [])
    for who, result in forced.items():
        by_family[who in suspects].extend(() if isinstance(result, str) else result)
    drawn, suspected = by_family
    floor = _floor(history, trusted, drawn, suspected, probes) if forced else None
    many = None
    if isinstance(floor, NoiseFloor) and floor.requests:
        many = beyond_controls(drawn, [*earlier_controls(history), *own_controls(history, trusted)])
    return _Basis(
        forced,
        trusted,
        _references(history),
        floor,
        known_end_tokens(history),
        gross=isinstance(floor, str) and bool(why_controls_untrusted(history)),
        many=many,
        suspects=suspects,
        own_controls=controls_of_suspects(history, trusted),
    )


def _suspects(history: History) -> set[str]:
    """Outputs that were forced because they looked strange."""
    forcings_of = (o for o in asked_of(history) if o.request.purpose is Purpose.FORCING)
    return {str(o.request.about) for o in forcings_of if o.request.condition is Condition.SUSPECT}


def _retried(history: History, basis: _Basis) -> Iterator[tuple[Request, Compared]]:
    for operation in asked_of(history):
        if operation.request.purpose is Purpose.RETRY and operation.outcome is Outcome.OK:
            found = basis.forcings.get(operation.request.request_id, ())
            forced, bounds = compare_with_forcing(operation, found), basis.bounds(str(operation.request.about))
            if not isinstance(forced, str) and bounds is not None:
                compared = compare_forced(operation, forced, bounds)
                yield operation.request, check_end(operation, compared, basis.ends, found)


def _why_untrusted(history: History, found: Sequence[Operation]) -> str:
    """Why forcings may have read the KV under test; empty if they have not."""
    return next(filter(None, (untrusted_forcing(history, route) for route in {o.request.route for o in found})), "")


def _floor(
    history: History,
    trusted: Forcings,
    drawn: Sequence[Forced],
    suspects: Sequence[Forced],
    probes: Sequence[Forced],
) -> NoiseFloor | str:
    tested = [*drawn, *suspects, *probes]
    if (shifted := _shifted(history)) and any(one.regret.any() for one in tested):
        return shifted
    if why := why_controls_untrusted(history):
        # Outputs without any noise are right even if control requests cannot be trusted.
        quiet = quiet_floor(tested)
        return quiet if isinstance(quiet, NoiseFloor) else f"the control requests may have read transferred KV: {why}"
    earlier = list(earlier_controls(history))
    if not earlier and all(one.request.condition is Condition.SUSPECT for one in controls(history)):
        return quiet_floor(tested)
    every = [*earlier, *own_controls(history, trusted)]
    return measure_floor(Outputs(every, drawn, suspects, probes))


def _shifted(history: History) -> str:
    """The reason if --extra-body changes which tokens the servers choose; else empty."""
    names = sorted({name for entry in history.of(Decoding) for name in entry.shifted_by})
    if not names:
        return ""
    return (
        f"--extra-body sets {', '.join(names)}: the servers choose other tokens than the ones that they rate best, and "
        "teacher forcing cannot show whether these tokens are right"
    )


def _outputs_to_verify(history: History, every: Forcings) -> Iterator[Operation]:
    """Requests of the load that completed and went through the proxy, or that have requests that verify them."""
    verified = {o.request.about for o in asked_of(history) if o.request.purpose in _VERIFYING} | set(every)
    for operation in load_of(history):
        request = operation.request
        asked = request.request_id in verified
        whole = operation.outcome is Outcome.OK and (request.route is Route.PROXY or asked)
        if whole or (asked and is_partial(operation)):
            yield operation


def _references(history: History) -> dict[str | None, Operation]:
    return {o.request.about: o for o in asked_of(history) if o.request.purpose is Purpose.REFERENCE}


def _compare(history: History, operation: Operation, basis: _Basis) -> Compared:
    who = operation.request.request_id
    reference = basis.references.get(who)
    why = "" if reference is None else untrusted(history, reference.request.route)
    if reference is not None and is_partial(operation):
        reference = beginning_of(reference, operation)
    compared = _compare_trusted(operation, basis, None if why else reference)
    if compared.match is Match.MISMATCH and is_partial(operation):
        compared = replace(compared, text=f"{compared.text}; {how_far(operation)}")
    if not why or compared.match is Match.MISMATCH:
        return compared
    return Compared(who, Match.UNVERIFIED, f"its reference may have been answered from a cache: {why}")


def _compare_trusted(operation: Operation, basis: _Basis, reference: Operation | None) -> Compared:
    who = operation.request.request_id
    forced, bounds = basis.forced.get(who), basis.bounds(who)
    if basis.gross and isinstance(forced, tuple) and (wrong := gross_mismatch(operation, forced)):
        return wrong
    if isinstance(forced, tuple) and bounds is not None:
        compared = compare_forced(operation, forced, bounds)
        compared = check_end(operation, compared, basis.ends, basis.forcings.get(who, ()))
        return compared if reference is None else compare_with_both(operation, reference, compared, bounds)
    if reference is not None:
        failed = forced if isinstance(forced, str) else ""
        return compare_unforced(operation, reference, bounds, failed)
    return Compared(who, Match.UNVERIFIED, forced) if isinstance(forced, str) else _unasked(operation)
