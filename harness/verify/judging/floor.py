"""The noise floor: how large regrets and drifts become without KV transfer.

The control requests are prompts of the load that the decode server serves at the load's concurrency, without transfer
and with salts of their own. Their outputs are teacher-forced like the load's. So they show every harmless difference
between a served output and its forcing: from batches of other sizes, from decode kernels in place of prefill kernels,
from two servers that round in different ways. Two kinds of limits are derived (noise.py has the theory):

near    from the control outputs, as if noise had no heavy tail. An output that exceeds one of them is only doubtful.
far     from the control outputs and the outputs of the load that are not doubtful, for noise with a heavy tail. An
        output that exceeds one of them is wrong. A run of this length that holds nothing but noise exceeds any of them
        with probability ALPHA at most. The outputs of the load, most of them right, are many more than the control
        outputs, and show how heavy the tail is. Doubtful outputs are left out, since a few damaged outputs would raise
        the limits above themselves.

There are limits for single tokens (margin error, which bounds the regret, and drift), and for averages over the tokens
of an output (averages.py). No limit is below the constant RESOLUTION: outputs that stay below it are right at any
noise and need no control requests (``quiet_floor``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.verify.judging.averages import ByOutput, far_average_limits, near_average_limits
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, exceeds
from harness.verify.judging.noise import MIN_SAMPLE, Floats, far_limit, near_limit

ALPHA = 1e-3
"""Probability of a false alarm in a whole run: one in a thousand clean runs, three years of nightly ones."""
_TESTS = 4
"""Limits that share ALPHA: of margin error and of drift, for single tokens and for averages."""
_TAIL = 0.01
"""Share of the tokens that counts as the tail."""
RESOLUTION = 1e-4
"""The lowest limit, nats: log-probabilities are float32 sums of a few logits of some tens, whose last bit is 4e-6. It
matters only if the control outputs show no noise at all: a limit of 0 would require exact equality."""
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


def measure_floor(controls: Sequence[Forced], tested: Sequence[Forced]) -> NoiseFloor | str:
    """The limits for all ``tested`` outputs together, or the reason why the control outputs give no limits."""
    if not controls:
        return "no control output was completed and teacher-forced"
    near = _near_limits(controls, tested)
    if isinstance(near, str):
        return near
    clean = [one for one in tested if not exceeds(one, near)]
    floor = NoiseFloor(
        near=near,
        far=_far_limits([*controls, *clean], tested, near),
        requests=len(controls),
        tokens=len(_known(one.drift for one in controls)),
        power=float((_known(one.margin for one in controls) > near.regret).mean()),
    )
    return _usable(floor, controls)


def quiet_floor(tested: Sequence[Forced]) -> NoiseFloor | str:
    """RESOLUTION as every limit, if no output exceeds it; else the reason why there is no floor."""
    margins, drifts = _columns(tested)
    shown = np.concatenate([np.empty(0), *margins, *drifts, *(one.regret for one in tested)])
    # NaN is not below the limit: a value that the server did not report may be anything.
    if not len(shown) or not (shown <= RESOLUTION).all():
        return "no control requests were made"
    limits = Limits(RESOLUTION, RESOLUTION, {}, {})
    power = float((_known(one.margin for one in tested) > RESOLUTION).mean())
    return NoiseFloor(near=limits, far=limits, requests=0, tokens=0, power=power)


def _near_limits(controls: Sequence[Forced], tested: Sequence[Forced]) -> Limits | str:
    tokens, share = sum(one.tokens for one in tested), ALPHA / _TESTS
    lengths = [one.tokens for one in tested]
    known = [ByOutput.of(arrays) for arrays in _columns(controls)]
    limits = [near_limit(sample.values, tokens, share) for sample in known]
    if limits[0] is None or limits[1] is None:
        fewest = min(len(sample.values) for sample in known)
        return f"the control outputs have the log-probabilities of {fewest} tokens, and {MIN_SAMPLE} are needed"
    averages = [_resolved(near_average_limits(sample, lengths, share)) for sample in known]
    return Limits(max(limits[0], RESOLUTION), max(limits[1], RESOLUTION), *averages)


def _far_limits(noise: Sequence[Forced], tested: Sequence[Forced], near: Limits) -> Limits:
    """A far limit of single tokens is never below the near limit. ``noise``: outputs without damage."""
    tokens, share = sum(one.tokens for one in tested), ALPHA / _TESTS
    lengths = [one.tokens for one in tested]
    known = [ByOutput.of(arrays) for arrays in _columns(noise)]
    regret, drift = (far_limit(sample.values, tokens, share, part=_TAIL, outputs=sample.outputs) for sample in known)
    averages = [_resolved(far_average_limits(sample, lengths, share)) for sample in known]
    return Limits(max(regret, near.regret), max(drift, near.drift), *averages)


def _resolved(limits: Mapping[int, float]) -> dict[int, float]:
    return {length: max(limit, RESOLUTION) for length, limit in limits.items()}


def _columns(outputs: Sequence[Forced]) -> tuple[list[Floats], list[Floats]]:
    return [one.margin_error for one in outputs], [one.drift for one in outputs]


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
