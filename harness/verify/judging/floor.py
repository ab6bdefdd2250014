"""The noise floor: how large regrets, drifts and margin errors become without KV transfer.

The control requests are prompts of the load that the decode server serves at the load's concurrency, without transfer
and with salts of their own. Their outputs are teacher-forced like the load's. So they show every harmless difference
between a served output and its forcing: from batches of other sizes, from decode kernels in place of prefill kernels,
from two servers that round in different ways. The outputs of the load, most of them right, are many more than the
control outputs and show how far noise reaches (noise.py has the theory). Both together are the sample.

Four numbers of an output are compared: the largest margin error of a token, which bounds its regret; the largest
drift; and two average errors over its tokens (averages.py), which find most damage. There are two limits for each:

near    noise exceeds it in one run of ten. An output that exceeds it is doubtful: it is listed, and its prompt is
        measured again, but it makes no run invalid.
far     noise exceeds any far limit in one run of a thousand (ALPHA). An output that exceeds one is wrong.

Rule 1. For single tokens, the probabilities of all tested values are added up (Bonferroni). This holds for any
        dependence between them; tokens of one request go wrong together.
Rule 2. For averages, the probabilities are compared with a rising line (Benjamini and Hochberg, 1995): the limit for K
        outputs beyond it is that at which noise would put K times ALPHA/2 of them. A run of nothing but noise is
        accused no more often, since its first wrong output needs the strictest limit. If several outputs are far out,
        the limit is lower: eight outputs just beyond all others are no noise, though each by itself might be.
Rule 3. Outputs that were picked because they looked suspicious (*suspects*) are no part of the sample, since they were
        not drawn at random. They share half of ALPHA among themselves, and the other outputs the other half: a suspect
        has the lower limit, because suspects are few. This is honest if what made them suspects says nothing about
        their noise, which holds for the prefill server's own first token (witness.py).
Rule 4. A heavy tail of single tokens makes averages have one, too, unless tokens are independent. So the shape of the
        tail of averages is expected to be that of drifts, and at least LIGHTEST.
Rule 5. If damage moved all outputs alike, the sample would show nothing. So the limits are also drawn from the control
        outputs alone, and outputs beyond them are counted (many_doubtful.py).
Rule 6. A prompt may be noisier than others. If control outputs of the output's own prompt err more than usual, all its
        limits are raised by as much (``own_noise``).

No limit is below the constant RESOLUTION: outputs that stay below it are right at any noise and need no control
requests (``quiet_floor``).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import Any

import numpy as np

from harness.verify.judging.averages import ByOutput, Kind, Usual, average, comparable, compared_length
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits
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

ALPHA = 1e-3
"""Probability of a false alarm in a whole run: one in a thousand clean runs, three years of nightly ones."""
RESOLUTION = 1e-4
"""The lowest limit, nats: log-probabilities are float32 sums of a few logits of some tens, whose last bit is 4e-6. It
matters only if the control outputs show no noise at all: a limit of 0 would require exact equality."""
LIGHTEST = 0.05
"""The least shape that averages are expected to have. Averages of 3,500 clean outputs on two H100s had -0.1 to 0.1."""
MIN_TOKENS = 100
"""Tokens that a floor needs. If one value in thirty is a step and the others are 0, twenty may have no step at all."""
_TOKENS = Expected(0.05, 0.2, margin=1.0)
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
_MIN_POWER = 0.25
"""The lowest power of a usable floor. A wrong output is wrong at most positions, so that one in four is enough; servers
that really disagree have a power near 0."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The limits of noise, and the size of the sample behind them."""

    near: Limits
    """An output that exceeds one of these is doubtful."""
    far: Limits
    """An output that exceeds one of these is wrong."""
    far_of_suspects: Limits
    """Far limits for outputs that were picked because they looked suspicious."""
    requests: int
    """Control outputs in the sample."""
    tokens: int
    """Tokens of these control outputs."""
    power: float
    """Share of positions, 0 to 1, at which even the second-best token would be detected if it were served: the margin
    there is above the near limit."""

    def as_json(self) -> dict[str, Any]:
        """The entry in result.json."""
        return {
            "regret_nats": self.near.regret,
            "drift_nats": self.near.drift,
            "far_regret_nats": self.far.regret,
            "far_drift_nats": self.far.drift,
            "control_requests": self.requests,
            "control_tokens": self.tokens,
            "power": self.power,
            "alpha": ALPHA,
        }


@dataclass(frozen=True, slots=True)
class Outputs:
    """All teacher-forced outputs of a run."""

    controls: Sequence[Forced]
    """Made without KV transfer."""
    drawn: Sequence[Forced]
    """Outputs of the load that were drawn at random."""
    suspects: Sequence[Forced] = ()
    """Outputs of the load that were picked because they looked suspicious."""
    probes: Sequence[Forced] = ()
    """Probes of caches: single tokens, which have no average."""

    @property
    def sample(self) -> list[Forced]:
        """Outputs of which most have nothing but noise; the controls come first."""
        return [*self.controls, *self.drawn]


def measure_floor(outputs: Outputs) -> NoiseFloor | str:
    """The limits for all outputs together, or the reason why the control outputs give no limits."""
    if not outputs.controls:
        return "no control output was completed and teacher-forced"
    columns = [one.drift for one in outputs.controls], [one.margin_error for one in outputs.controls]
    if (known := min(len(_known(column)) for column in columns)) < MIN_TOKENS:
        return f"the control outputs have the log-probabilities of {known} tokens, and {MIN_TOKENS} are needed"
    near, far, far_of_suspects = _Noise.of(outputs).limits(outputs)
    floor = NoiseFloor(
        near=near,
        far=far,
        far_of_suspects=far_of_suspects,
        requests=len(outputs.controls),
        tokens=len(_known(one.drift for one in outputs.controls)),
        power=float((_known(one.margin for one in outputs.controls) > near.regret).mean()),
    )
    return _usable(floor, outputs.controls)


def quiet_floor(tested: Sequence[Forced]) -> NoiseFloor | str:
    """RESOLUTION as every limit, if no output exceeds it; else the reason why there is no floor."""
    arrays = chain.from_iterable((one.margin_error, one.drift, one.regret) for one in tested)
    shown = np.concatenate([np.empty(0), *arrays])
    # NaN is not below the limit: a value that the server did not report may be anything.
    if not len(shown) or not (shown <= RESOLUTION).all():
        return "no control requests were made"
    limits = Limits(RESOLUTION, RESOLUTION, {}, Usual(RESOLUTION, RESOLUTION))
    power = float((_known(one.margin for one in tested) > RESOLUTION).mean())
    return NoiseFloor(near=limits, far=limits, far_of_suspects=limits, requests=0, tokens=0, power=power)


def control_limits(controls: Sequence[Forced], tested: Sequence[Forced]) -> Limits | None:
    """Limits from control outputs alone, which noise exceeds in one run of a thousand; None if these are too few."""
    near, far, _ = _Noise.of(Outputs(controls, ())).limits(Outputs(controls, tested))
    return far if np.isfinite(near.regret) and np.isfinite(near.drift) else None


def own_noise(controls: Iterable[Forced], usual: Usual) -> float:
    """How much noisier than usual a prompt is: 1 at least. ``controls``: control outputs of this prompt alone."""
    errors = [average(usual.errors(one, Kind.BOTH)) for one in controls]
    known = [one for one in errors if np.isfinite(one)]
    return max(1.0, float(np.sqrt(np.mean(np.square(known))))) if known else 1.0


@dataclass(frozen=True, slots=True)
class _Noise:
    """What the sample says about noise."""

    usual: Usual
    errors: Mapping[Kind, ByOutput]
    """Errors of the tokens of ordinary outputs, in multiples of the usual ones."""
    controls: int
    """How many outputs of the sample are controls; they come first."""
    expected: Expected
    """The shape that the tail of averages is expected to have (rule 4)."""
    regret: Tails
    drift: Tails

    @classmethod
    def of(cls, outputs: Outputs) -> "_Noise":
        sample, controls = outputs.sample, len(outputs.controls)
        usual = Usual.of(sample, RESOLUTION)
        arrays = {kind: [usual.errors(one, kind) for one in sample] for kind in Kind}
        every, expected = ByOutput.of(arrays[Kind.BOTH]), _FIRST
        for _ in range(_ROUNDS):
            ordinary = _ordinary(every, controls, expected)
            kept = [*compress(sample, ordinary), *outputs.probes]
            drifts = _tokens([one.drift for one in kept], controls)
            shape = shape_of_tail(drifts, _TOKENS, part=_TOKEN_TAIL)
            expected = Expected(min(max(shape, LIGHTEST), HEAVIEST), _AVERAGE_ERROR)
        margins, future = _tokens([one.margin_error for one in kept], controls), len(drifts.values)
        tails = (estimate_tails(one, future, _TOKENS, part=_TOKEN_TAIL, twice=False) for one in (margins, drifts))
        errors = {kind: ByOutput.of([*compress(arrays[kind], ordinary)]) for kind in Kind}
        return cls(usual, errors, controls, expected, *tails)

    def limits(self, outputs: Outputs) -> tuple[Limits, Limits, Limits]:
        """The near limits, the far limits of outputs drawn at random, and those of suspects."""
        drawn = _Family.of([*outputs.drawn, *outputs.probes], self.usual, 0.5 if outputs.suspects else 1.0)
        suspects = _Family.of(outputs.suspects, self.usual, 0.5)
        keys = {key for family in (drawn, suspects) for key in family.keys}
        tails = {key: self._average_tails(*key) for key in keys}
        times = _step_up([*drawn.ratios(tails), *suspects.ratios(tails)])
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
            max(self.regret.limit(token_level), RESOLUTION),
            max(self.drift.limit(token_level), RESOLUTION),
            {key: max(one.limit(average_level), least) for key, one in tails.items()},
            self.usual,
        )


def _average_tails(errors: ByOutput, length: int, controls: int, expected: Expected) -> Tails:
    values, numbers = comparable(errors, length)
    return estimate_tails(Sample(values, numbers < controls), len(errors.lengths), expected)


@dataclass(frozen=True, slots=True)
class _Family:
    """Outputs that share a part of ALPHA (rule 3)."""

    averages: Mapping[Kind, Sequence[tuple[int, float]]]
    """The compared length and the average error of each output that has one."""
    tokens: int
    part: float
    least: float
    """Averages up to this one are below RESOLUTION."""

    @classmethod
    def of(cls, outputs: Sequence[Forced], usual: Usual, part: float) -> "_Family":
        averages = {kind: _with_lengths(ByOutput.of([usual.errors(one, kind) for one in outputs])) for kind in Kind}
        return cls(averages, sum(one.tokens for one in outputs), part, RESOLUTION / usual.drift)

    @property
    def keys(self) -> set[tuple[Kind, int]]:
        """The kinds and compared lengths of all averages."""
        return {(kind, length) for kind, averages in self.averages.items() for length, _ in averages}

    @property
    def tested(self) -> tuple[int, int]:
        """How many tokens, and how many averages of each kind, are tested."""
        return self.tokens, max(map(len, self.averages.values()))

    @property
    def average_level(self) -> float:
        """The probability with which one average of one kind may exceed the strictest limit."""
        return self.part * ALPHA / 4 / max(self.tested[1], 1)

    @property
    def token_level(self) -> float:
        """The probability with which one token's drift, or its margin error, may exceed its limit."""
        return self.part * ALPHA / 4 / max(self.tokens, 1)

    def ratios(self, tails: Mapping[tuple[Kind, int], Tails]) -> list[float]:
        """The smaller probability of each output's averages divided by ``average_level``, for those not too small."""
        both = zip(*self.averages.values(), strict=True)
        return [min(self._ratio(tails, kind, *one) for kind, one in zip(Kind, pair, strict=True)) for pair in both]

    def _ratio(self, tails: Mapping[tuple[Kind, int], Tails], kind: Kind, length: int, shown: float) -> float:
        return tails[kind, length].probability(shown) / self.average_level if shown > self.least else math.inf


def _with_lengths(errors: ByOutput) -> list[tuple[int, float]]:
    lengths = map(compared_length, errors.lengths.tolist())
    averages = errors.whole_averages().tolist()
    return [(length, shown) for length, shown in zip(lengths, averages, strict=True) if length is not None]


def _step_up(ratios: Sequence[float]) -> int:
    """Rule 2: the largest K for which K ratios are K at most; 1 at least."""
    rising = np.sort(np.array(ratios))
    below = np.flatnonzero(rising <= np.arange(1, len(rising) + 1))
    return int(below[-1]) + 1 if len(below) else 1


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


def _known(arrays: Iterable[Floats]) -> Floats:
    together: Floats = np.concatenate([np.empty(0), *arrays])
    known: Floats = together[np.isfinite(together)]
    return known


def _usable(floor: NoiseFloor, controls: Sequence[Forced]) -> NoiseFloor | str:
    """The floor, unless a wrong token would rarely exceed it, or the control outputs are themselves wrong."""
    if floor.power < _MIN_POWER:
        return (
            f"even without KV transfer the servers disagree so much (noise limit: {floor.near.regret:.3g} nats) that a "
            f"wrong token would be detected at only {floor.power:.0%} of positions: they do not compute the same"
        )
    worst = max(float(one.regret.max()) for one in controls)
    if worst > floor.far.regret:
        return (
            f"a control output, made without KV transfer, has a token {worst:.3g} nats behind the best one: servers do "
            "not choose the token that they rate best (does the request body set penalties or biases?)"
        )
    return floor
