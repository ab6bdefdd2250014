"""The control outputs of a run and of earlier runs on the same deployment, compared with their forcings. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.history import History, NoiseMeasured, NoisyOutput, Operation, Outcome
from harness.scenario import Condition, Purpose, Route
from harness.verify.judging.forcing import Forced, compare_with_forcing, forcings
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.salts import untrusted

Forcings = Mapping[str, Sequence[Operation]]
"""Teacher forcings by the id of the request whose output they force."""


def why_controls_untrusted(history: History) -> str:
    """Why control requests, of this or an earlier run on the same deployment, may have read transferred KV."""
    return untrusted(history, Route.DECODE)


def control_outputs(history: History) -> tuple[NoisyOutput, ...]:
    """The noise of this run's own control outputs, to be kept for later runs; empty if they are not trusted."""
    if why_controls_untrusted(history):
        return ()
    found = own_controls(history, forcings(history))
    arrays = ([one.regret, one.drift, one.margin_error, one.margin] for one in found)
    return tuple(NoisyOutput(*(tuple(array.tolist()) for array in four)) for four in arrays)


def own_controls(history: History, found: Forcings) -> Iterator[Forced]:
    """The run's control outputs compared with their forcings, without those of suspected outputs' prompts.

    Prompts were not drawn at random if their outputs look wrong: they may be the noisiest.
    """
    for operation in controls(history):
        who, drawn = operation.request.request_id, operation.request.condition is not Condition.SUSPECT
        if who in found and drawn and operation.outcome is Outcome.OK:
            forced = compare_with_forcing(operation, found[who])
            yield from () if isinstance(forced, str) else forced


def controls_of_suspects(history: History, trusted: Forcings) -> dict[str, list[Forced]]:
    """Control outputs of prompts whose outputs looked wrong, by the id of the output's request."""
    found: dict[str, list[Forced]] = {}
    for operation in controls(history):
        request = operation.request
        if request.condition is Condition.SUSPECT and operation.outcome is Outcome.OK:
            result = compare_with_forcing(operation, trusted.get(request.request_id, ()))
            found.setdefault(str(request.about), []).extend(() if isinstance(result, str) else result)
    return found


def earlier_controls(history: History) -> Iterator[Forced]:
    """The control outputs of earlier runs on the same deployment."""
    for measured in history.of(NoiseMeasured):
        for one in measured.outputs:
            yield Forced(*(np.array(array) for array in (one.regret, one.drift, one.margin_error, one.margin)))


def controls(history: History) -> Iterator[Operation]:
    """The control requests, in the order sent."""
    return (operation for operation in asked_of(history) if operation.request.purpose is Purpose.CONTROL)
