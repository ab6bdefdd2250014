"""The noise floor: how large regrets, drifts, margin errors and their averages become with nothing wrong.

The control requests are prompts of the load that the decode server serves at the load's concurrency, without transfer
and with salts of their own. Their outputs are teacher-forced like the load's. So they show every harmless difference
between a served output and its forcing: from batches of other sizes, from decode kernels in place of prefill kernels,
from two servers that round in different ways. The outputs of the load, most of them right, are many more than the
control outputs and show how far noise reaches (noise.py has the theory). Both together are the sample.

Four numbers of an output are compared: the largest margin error of a token, which bounds its regret; the largest
drift; and two average errors over its tokens (averages.py), which find most damage. There are two limits for each:

near    noise exceeds it in one run of ten. An output that exceeds it is doubtful: it is listed, the caches that hold
        its prompt are probed, and its prompt's own noise is measured (rule 6), but it makes no run invalid.
far     noise exceeds any far limit in one run of a thousand (ALPHA). An output that exceeds one is wrong.

Rule 1. For single tokens, the probabilities of all tested values are added up (Bonferroni). This holds for any
        dependence between them; tokens of one request go wrong together.
Rule 2. For averages, the probabilities are compared with a rising line (Benjamini and Hochberg, 1995): the limit for K
        outputs beyond it is that at which noise would put K times ALPHA/2 of them. A run of nothing but noise is
        accused no more often, since its first wrong output needs the strictest limit. If several outputs are far out,
        the limit is lower: eight outputs just beyond all others are no noise, though each by itself might be.
Rule 3. Outputs that were picked because they looked strange (*suspects*; witness.py) are no part of the sample, since
        they were not drawn at random. They share half of ALPHA among themselves, and the other outputs the other half:
        since suspects are few, their limits are lower. But strange outputs are noisier: of 2,940 clean outputs on two
        H200s, the strangest 2 % had averages beyond a quantile of all of them 1.4 to 3.5 times as often as others. So
        each suspect counts as LOUDER outputs.
Rule 4. A heavy tail of single tokens makes averages have one, too, unless tokens are independent. So the shape of the
        tail of averages is expected to be that of drifts, and at least LIGHTEST.
Rule 5. If damage moved all outputs alike, the sample would show nothing. So the limits are also drawn from the control
        outputs alone, and outputs beyond them are counted (many_doubtful.py).
Rule 6. A prompt may be noisier than others. If control outputs of the output's own prompt err more than usual, all its
        limits are raised by as much (``own_noise``).

No limit is below the constant RESOLUTION: outputs that stay below it are right at any noise and need no control
requests (``quiet_floor``). No limit of single tokens is above the constant GROSS: a token that is as far behind the
best one is wrong at any noise (gross_mismatch.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from harness.verify.judging.averages import Kind, Usual, average
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import ALPHA, RESOLUTION, Limits, exceeds
from harness.verify.judging.noise import Floats
from harness.verify.judging.sample import Outputs, SampleNoise

MIN_TOKENS = 100
"""Tokens that a floor needs. If one value in thirty is a step and the others are 0, twenty may have no step at all."""
_MOST_USUAL = 1.0
"""The largest usual margin error of control outputs, nats. On two H100s it was 0.08."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The limits of noise, and the size of the sample behind them."""

    near: Limits
    """An output that exceeds one of these is doubtful."""
    far: Limits
    """An output that exceeds one of these is wrong."""
    far_of_suspects: Limits
    """Far limits for outputs that were picked because they looked strange."""
    requests: int
    """Control outputs in the sample."""
    tokens: int
    """Tokens of these control outputs."""
    power: float
    """Share of the control outputs, 0 to 1, that would be found wrong if they had the second-best token at every
    position: then their margins would be their margin errors."""

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


def measure_floor(outputs: Outputs) -> NoiseFloor | str:
    """The limits for all outputs together, or the reason why the control outputs give no limits."""
    if not outputs.controls:
        return "no control output was completed and teacher-forced"
    columns = [one.drift for one in outputs.controls], [one.margin_error for one in outputs.controls]
    if (known := min(len(_known(column)) for column in columns)) < MIN_TOKENS:
        return f"the control outputs have the log-probabilities of {known} tokens, and {MIN_TOKENS} are needed"
    near, far, far_of_suspects = SampleNoise.of(outputs).limits(outputs)
    floor = NoiseFloor(
        near=near,
        far=far,
        far_of_suspects=far_of_suspects,
        requests=len(outputs.controls),
        tokens=len(_known(one.drift for one in outputs.controls)),
        power=float(np.mean([exceeds(_with_second_best(one), far) for one in outputs.controls])),
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
    power = float(np.mean([exceeds(_with_second_best(one), limits) for one in tested]))
    return NoiseFloor(near=limits, far=limits, far_of_suspects=limits, requests=0, tokens=0, power=power)


def control_limits(controls: Sequence[Forced], tested: Sequence[Forced]) -> Limits | None:
    """Limits from control outputs alone, which noise exceeds in one run of a thousand; None if these are too few."""
    noise = SampleNoise.of(Outputs(controls, ()))
    if not noise.regret.each or not noise.drift.each:
        return None
    _, far, _ = noise.limits(Outputs(controls, tested))
    return far


def own_noise(controls: Iterable[Forced], usual: Usual) -> float:
    """How much noisier than usual a prompt is: 1 at least. ``controls``: control outputs of this prompt alone."""
    errors = [average(usual.errors(one, Kind.BOTH)) for one in controls]
    known = [one for one in errors if np.isfinite(one)]
    return max(1.0, float(np.sqrt(np.mean(np.square(known))))) if known else 1.0


def _with_second_best(one: Forced) -> Forced:
    """The output if a server had served the second-best token at every position, and was sure of it."""
    return replace(one, margin_error=np.abs(one.margin), regret=np.abs(np.nan_to_num(one.margin)))


def _known(arrays: Iterable[Floats]) -> Floats:
    together: Floats = np.concatenate([np.empty(0), *arrays])
    known: Floats = together[np.isfinite(together)]
    return known


def _usable(floor: NoiseFloor, controls: Sequence[Forced]) -> NoiseFloor | str:
    """The floor, unless servers disagree about everything, or the control outputs are themselves wrong."""
    if (usual := Usual.of(controls, RESOLUTION).margin_error) > _MOST_USUAL:
        return (
            f"even without KV transfer the servers disagree by {usual:.3g} nats on how far a token leads: they do not "
            "compute the same"
        )
    worst = max(float(one.regret.max()) for one in controls)
    if worst > floor.far.regret:
        return (
            f"a control output, made without KV transfer, has a token {worst:.3g} nats behind the best one: servers do "
            "not choose the token that they rate best (does the request body set penalties or biases?)"
        )
    return floor
