"""The noise floor: what the control arm, in which nothing was transferred, shows of regrets and drifts.

The control arm serves prompts of the load on the decode server at the load's concurrency, without transfer and under
salts of their own, and is teacher-forced beside the load. It holds every harmless reason for which a served output may
differ from its forcing: batches of other sizes, decode kernels beside prefill kernels, two servers that round in
different ways. Two kinds of limits are drawn (noise.py has their theory):

near    from the control outputs, as if noise had no heavy tail. An output beyond one of them is doubtful, and no more.
far     from the control outputs and the load's own outputs that are not doubtful, as if noise had nothing but a
        variance. An output beyond one of them is wrong. A run of nothing but noise, of this run's length, crosses any
        of them with probability ALPHA at most. Most outputs are clean in any run that is worth judging, and they are
        many more than the control outputs: they show how heavy the tail is. Doubtful ones stay out, or a few damaged
        outputs would stretch the limits until they are within.

Both are drawn for single tokens (margin error, which bounds the regret, and drift), and for averages over an output's
tokens (averages.py). No limit is a number of ours, with one exception: RESOLUTION. Where no output shows more than
that, no arm could accuse any of them, and none is needed (``quiet_floor``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.verify.judging.averages import ByOutput, far_average_limits, near_average_limits
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, crossings
from harness.verify.judging.noise import LEAST, Floats, far_limit, noise_limit

ALPHA = 1e-3
"""Probability of a false alarm in a whole run: one in a thousand clean runs, three years of nightly ones."""
_TESTS = 4
_TAIL = 0.01
# Share of the tokens that makes their tail.
RESOLUTION = 1e-4
"""Nats. Log-probabilities are float32 and made from logits of some tens, whose last bit is 4e-6; a few sums of those.
It counts only where a control arm shows no noise at all: a floor of nothing would be a claim of exact equality."""
_BLIND = 0.25
# The share of places where a second best token would be seen, below which there is no floor. A wrong output is wrong at
# most of its places, so that seeing one in four is plenty; servers that really disagree come to hardly any.


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Limits that noise alone does not cross, and what they rest on."""

    near: Limits
    """Beyond these an output is doubtful."""
    far: Limits
    """Beyond these it is wrong."""
    requests: int
    """Control outputs behind the limits."""
    tokens: int
    power: float
    """Share of places where even the second best token, if it were served, would be seen: the margin is above the near
    limit."""
    alpha: float = ALPHA

    def as_json(self) -> dict[str, Any]:
        """For result.json."""
        return {
            "regret_nats": self.near.regret,
            "drift_nats": self.near.drift,
            "far_regret_nats": self.far.regret,
            "far_drift_nats": self.far.drift,
            "control_requests": self.requests,
            "control_tokens": self.tokens,
            "power": self.power,
            "alpha": self.alpha,
        }


def measure_floor(control: Sequence[Forced], judged: Sequence[Forced]) -> NoiseFloor | str:
    """The limits for judging all of ``judged``; or why the control arm carries none."""
    if not control:
        return "no control output was completed and teacher-forced"
    near = _near_limits(control, judged)
    if isinstance(near, str):
        return near
    clean = [one for one in judged if next(crossings(one, near, one.regret), None) is None]
    floor = NoiseFloor(
        near=near,
        far=_far_limits([*control, *clean], judged, near),
        requests=len(control),
        tokens=len(_known(one.drift for one in control)),
        power=float((_known(one.margin for one in control) > near.regret).mean()),
    )
    return _usable(floor, control)


def quiet_floor(judged: Sequence[Forced]) -> NoiseFloor | str:
    """RESOLUTION for every limit, where no output shows more than that; else why the noise has to be measured.

    No limit is ever lower, so that whatever a control arm would show, it could accuse none of these outputs.
    """
    margins, drifts = _columns(judged)
    shown = np.concatenate([np.empty(0), *margins, *drifts, *(one.regret for one in judged)])
    if not len(shown) or not (shown <= RESOLUTION).all():  # NaN is not: what was not told may be anything
        return "no control output was asked for"
    limits = Limits(RESOLUTION, RESOLUTION, {}, {})
    power = float((_known(one.margin for one in judged) > RESOLUTION).mean())
    return NoiseFloor(near=limits, far=limits, requests=0, tokens=0, power=power)


def _near_limits(control: Sequence[Forced], judged: Sequence[Forced]) -> Limits | str:
    tokens, share = sum(one.tokens for one in judged), ALPHA / _TESTS
    lengths = [one.tokens for one in judged]
    known = [ByOutput.of(arrays) for arrays in _columns(control)]
    limits = [noise_limit(sample.values, tokens, share) for sample in known]
    if limits[0] is None or limits[1] is None:
        fewest = min(len(sample.values) for sample in known)
        return f"the control arm shows the noise of {fewest} tokens, and {LEAST} are needed"
    averages = [_resolved(near_average_limits(sample, lengths, share)) for sample in known]
    return Limits(max(limits[0], RESOLUTION), max(limits[1], RESOLUTION), *averages)


def _far_limits(noise: Sequence[Forced], judged: Sequence[Forced], near: Limits) -> Limits:
    """``noise``: outputs that show nothing else. No token's far limit is below its near one."""
    tokens, share = sum(one.tokens for one in judged), ALPHA / _TESTS
    lengths = [one.tokens for one in judged]
    known = [ByOutput.of(arrays) for arrays in _columns(noise)]
    regret, drift = (far_limit(sample.values, tokens, share, part=_TAIL, owners=sample.owners) for sample in known)
    averages = [_resolved(far_average_limits(sample, lengths, share)) for sample in known]
    return Limits(max(regret, near.regret), max(drift, near.drift), *averages)


def _resolved(limits: Mapping[int, float]) -> dict[int, float]:
    return {length: max(limit, RESOLUTION) for length, limit in limits.items()}


def _columns(control: Sequence[Forced]) -> tuple[list[Floats], list[Floats]]:
    return [one.margin_error for one in control], [one.drift for one in control]


def _known(arrays: Iterable[Floats]) -> Floats:
    together: Floats = np.concatenate([np.empty(0), *arrays])
    known: Floats = together[np.isfinite(together)]
    return known


def _usable(floor: NoiseFloor, control: Sequence[Forced]) -> NoiseFloor | str:
    """A control arm that is itself wrong must not pass for noise, and a floor over which nothing stands is none."""
    if floor.power < _BLIND:
        return (
            f"without any transfer the servers disagree by so much (limit {floor.near.regret:.3g} nats) that a wrong "
            f"token would be seen at {floor.power:.0%} of places only: they do not compute the same"
        )
    worst = max(float(one.regret.max()) for one in control)
    if worst > floor.far.regret:
        return (
            f"a control output, made without any transfer, has a token {worst:.3g} nats behind the best one: what the "
            "servers choose is not what they find best (penalties or biases in the request body?)"
        )
    return floor
