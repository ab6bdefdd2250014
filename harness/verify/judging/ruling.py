"""Which outputs of a run are wrong or doubtful, by their teacher forcings and by the noise of clean outputs. Pure.

This is the whole rule for outputs that were teacher-forced, without HTTP and without histories, so that a bench can
apply it to recorded numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.verify.judging.floor import NoiseFloor, measure_floor, own_noise
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, exceedances
from harness.verify.judging.many_doubtful import beyond_controls
from harness.verify.judging.sample import Outputs


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rule says about each output. Keys are indices into the outputs that were given."""

    floor: NoiseFloor
    wrong: Mapping[int, str]
    """Outputs that noise does not explain, each with the reason."""
    doubtful: Mapping[int, str]
    """Outputs that are neither right nor wrong with certainty, each with the reason."""


Own = Mapping[int, Sequence[Forced]]
"""Control outputs of the prompts of single outputs, by the index of the output."""


def rule_on(controls: Sequence[Forced], served: Sequence[Forced], own: Own = MappingProxyType({})) -> Ruling | str:
    """Apply the rule to ``served`` outputs, drawn at random, or say why the ``controls`` do not suffice.

    ``controls``: outputs that were made without KV transfer. ``own``: those of single prompts, which raise the limits
    of their outputs if they are noisier than usual.
    """
    floor = measure_floor(Outputs(controls, served))
    if isinstance(floor, str):
        return floor
    wrong = _beyond(served, floor.far, own)
    if many := beyond_controls(served, controls):
        wrong |= {index: f"{text}; {many.text}" for index, text in _beyond(served, many.limits, {}).items()}
    doubtful = _beyond(served, floor.near, own)
    return Ruling(floor, wrong, {index: text for index, text in doubtful.items() if index not in wrong})


def _beyond(served: Sequence[Forced], limits: Limits, own: Own) -> dict[int, str]:
    within = (limits.times(own_noise(own.get(index, ()), limits.usual)) for index in range(len(served)))
    first = (next(exceedances(one, each, one.regret), None) for one, each in zip(served, within, strict=True))
    return {index: one.text for index, one in enumerate(first) if one is not None}
