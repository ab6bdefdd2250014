"""What clean outputs, or outputs of which most are clean, say about noise. Pure; theory: floor.py and noise.py."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from harness.verify.judging.averages import ByOutput, Kind, Usual, comparable, compared_length
from harness.verify.judging.families import LOUDER, Family, step_up
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import GROSS, RESOLUTION, Limits
from harness.verify.judging.noise import (
    HEAVIEST,
    OUTLYING,
    Expected,
    Floats,
    Sample,
    Tails,
    estimate_tails,
    shape_of_tail,
)

LIGHTEST = 0.05
"""The least shape that averages are expected to have. Averages of 3,500 clean outputs on two H100s had -0.1 to 0.1."""
_TOKENS = Expected(0.05, 0.2, margin=2.0)
"""The expected shape of the tail of single tokens: hardly known. Their number soon outweighs it."""
_AVERAGE_ERROR = 0.1
"""How far the shape of averages is from that of single drifts: in recorded runs on GPUs and in synthetic noise, 0.2 at
most."""
_TOKEN_TAIL = 0.05
"""Share of the tokens that is their tail."""
_FIRST = Expected(LIGHTEST, _AVERAGE_ERROR)
"""The expected shape of averages before that of drifts is known."""
_ROUNDS = 2
"""How often outlying outputs are left out and the shape of drifts is estimated."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """All teacher-forced outputs of a run."""

    controls: Sequence[Forced]
    """Made without KV transfer."""
    drawn: Sequence[Forced]
    """Outputs of the load that were drawn at random."""
    suspects: Sequence[Forced] = ()
    """Outputs of the load that were picked because they looked strange."""
    probes: Sequence[Forced] = ()
    """Probes of caches: single tokens, which have no average. They are no part of the sample: those of suspected
    prompts come first, and one wrong block makes many of them wrong."""

    @property
    def sample(self) -> list[Forced]:
        """Outputs of which most have nothing but noise; the controls come first."""
        return [*self.controls, *self.drawn]


@dataclass(frozen=True, slots=True)
class SampleNoise:
    """What the sample says about noise."""

    usual: Usual
    errors: Mapping[Kind, ByOutput]
    """Errors of the tokens of ordinary outputs, in multiples of the usual ones."""
    controls: int
    """How many outputs of the sample are controls; they come first."""
    expected: Expected
    """The shape that the tail of averages is expected to have (rule 4)."""
    regret: Tails
    """Of the margin errors of single tokens, which bound their regrets; nats."""
    drift: Tails
    """Of the drifts of single tokens, nats."""

    @classmethod
    def of(cls, outputs: Outputs) -> "SampleNoise":
        """From controls and outputs drawn at random."""
        sample, controls = outputs.sample, len(outputs.controls)
        usual = Usual.of(sample, RESOLUTION)
        arrays = {kind: [usual.errors(one, kind) for one in sample] for kind in Kind}
        every, expected = ByOutput.of(arrays[Kind.BOTH]), _FIRST
        for _ in range(_ROUNDS):
            ordinary = _ordinary(every, controls, expected)
            kept = [*compress(sample, ordinary)]
            drifts = _tokens([one.drift for one in kept], controls)
            shape = shape_of_tail(drifts, _TOKENS, part=_TOKEN_TAIL)
            expected = Expected(min(max(shape, LIGHTEST), HEAVIEST), _AVERAGE_ERROR)
        margins, future = _tokens([one.margin_error for one in kept], controls), len(drifts.values)
        tails = (estimate_tails(one, future, _TOKENS, part=_TOKEN_TAIL, twice=False) for one in (margins, drifts))
        errors = {kind: ByOutput.of([*compress(arrays[kind], ordinary)]) for kind in Kind}
        return cls(usual, errors, controls, expected, *tails)

    def limits(self, outputs: Outputs) -> tuple[Limits, Limits, Limits]:
        """The near limits, the far limits of outputs drawn at random, and those of suspects."""
        drawn = Family.of([*outputs.drawn, *outputs.probes], self.usual, 0.5 if outputs.suspects else 1.0)
        suspects = Family.of(outputs.suspects, self.usual, 0.5 / LOUDER)
        keys = {key for family in (drawn, suspects) for key in family.keys}
        tails = {key: self._average_tails(*key) for key in keys}
        times = step_up([*drawn.ratios(tails), *suspects.ratios(tails)])
        near = self._limits(
            tails, *(OUTLYING / max(one + other, 1) for one, other in zip(drawn.tested, suspects.tested, strict=True))
        )
        far, of_suspects = (
            self._limits(tails, family.token_level, family.average_level * times) for family in (drawn, suspects)
        )
        return near, far, of_suspects

    def _average_tails(self, kind: Kind, length: int) -> Tails:
        return _average_tails(self.errors[kind], length, self.controls, self.expected)

    def _limits(self, tails: Mapping[tuple[Kind, int], Tails], token_level: float, average_level: float) -> Limits:
        least = RESOLUTION / self.usual.drift
        return Limits(
            min(max(self.regret.limit(token_level), RESOLUTION), GROSS),
            min(max(self.drift.limit(token_level), RESOLUTION), GROSS),
            {key: max(one.limit(average_level), least) for key, one in tails.items()},
            self.usual,
        )


def _average_tails(errors: ByOutput, length: int, controls: int, expected: Expected) -> Tails:
    values, numbers = comparable(errors, length, controls)
    return estimate_tails(Sample(values, numbers < controls), len(errors.lengths), expected)


def _ordinary(errors: ByOutput, controls: int, expected: Expected) -> list[bool]:
    """Which outputs of the sample are not outlying by their averages; all controls are ordinary."""
    lengths = [compared_length(length) for length in errors.lengths.tolist()]
    level = OUTLYING / len(lengths)
    limits = {
        length: _average_tails(errors, length, controls, expected).limit(level)
        for length in set(lengths)
        if length is not None
    }
    pairs = enumerate(zip(lengths, errors.whole_averages(), strict=True))
    return [number < controls or not shown > limits.get(length or 0, math.inf) for number, (length, shown) in pairs]


def _tokens(arrays: Sequence[Floats], controls: int) -> Sample:
    by_output = ByOutput.of(arrays)
    return Sample(by_output.values, by_output.outputs < controls, by_output.outputs)
