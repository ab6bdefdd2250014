"""The noise floor: what the control arm, in which nothing was transferred, shows of regrets and drifts.

The control arm serves prompts of the load on the decode server at the load's concurrency, without transfer and under
salts of their own, and is teacher-forced beside the load. It holds every harmless reason for which a served output may
differ from its forcing: batches of other sizes, decode kernels beside prefill kernels, two servers that round in
different ways. The limits are drawn from it so that a run of nothing but that, of this run's length, crosses any of
them with probability ALPHA at most (noise.py). No limit is a number of ours, with one exception: RESOLUTION. Where no
output shows more than that, no arm could accuse any of them, and none is needed (``quiet_floor``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.checkers.outputs.forcing import Forced
from harness.checkers.outputs.noise import LEAST, Floats, noise_limit

ALPHA = 1e-3
"""Probability of a false alarm in a whole run: one in a thousand clean runs, three years of nightly ones."""
_TESTS = 3
RESOLUTION = 1e-4
"""Nats. Log-probabilities are float32 and made from logits of some tens, whose last bit is 4e-6; a few sums of those.
It counts only where a control arm shows no noise at all: a floor of nothing would be a claim of exact equality."""
_BLIND = 0.25
# The share of places where a second best token would be seen, below which there is no floor. A wrong output is wrong at
# most of its places, so that seeing one in four is plenty; servers that really disagree come to hardly any.
_LEAST_OUTPUTS = 16
"""Control outputs below which nothing is said of an output's mean drift."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Limits, in nats, that noise alone does not cross."""

    regret: float
    """Of one token; its margin error has the same."""
    drift: float
    """Of one token."""
    mean_drift: float | None
    """Of one output's mean over its tokens; None where too few control outputs were made."""
    requests: int
    """Control outputs behind the limits."""
    tokens: int
    power: float
    """Share of places where even the second best token, if it were served, would be seen: the margin is above the
    limit."""
    alpha: float = ALPHA

    def as_json(self) -> dict[str, Any]:
        """For result.json."""
        names = {"regret": "regret_nats", "drift": "drift_nats", "mean_drift": "mean_drift_nats"}
        names |= {"requests": "control_requests", "tokens": "control_tokens"}
        return {names.get(name, name): value for name, value in asdict(self).items()}


def measure_floor(control: Sequence[Forced], judged: Sequence[Forced]) -> NoiseFloor | str:
    """The limits for judging all of ``judged``; or why the control arm carries none.

    The mean of one token is that token, and is neither judged nor taken for a mean of many.
    """
    if not control:
        return "no control output was completed and teacher-forced"
    tokens, share = sum(one.tokens for one in judged), ALPHA / _TESTS
    margins, drifts = (_known(arrays) for arrays in _columns(control))
    limits = [noise_limit(sample, tokens, share) for sample in (margins, drifts)]
    if limits[0] is None or limits[1] is None:
        return f"the control arm shows the noise of {min(len(margins), len(drifts))} tokens, and {LEAST} are needed"
    means = _known([np.array([one.mean_drift for one in control if one.tokens > 1])])
    mean = noise_limit(means, sum(one.tokens > 1 for one in judged), share, least=_LEAST_OUTPUTS)
    regret = max(limits[0], RESOLUTION)
    floor = NoiseFloor(
        regret=regret,
        drift=max(limits[1], RESOLUTION),
        mean_drift=None if mean is None else max(mean, RESOLUTION),
        requests=len(control),
        tokens=len(drifts),
        power=float((_known(one.margin for one in control) > regret).mean()),
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
    return NoiseFloor(
        regret=RESOLUTION,
        drift=RESOLUTION,
        mean_drift=RESOLUTION,
        requests=0,
        tokens=0,
        power=float((_known(one.margin for one in judged) > RESOLUTION).mean()),
    )


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
            f"without any transfer the servers disagree by so much (limit {floor.regret:.3g} nats) that a wrong token "
            f"would be seen at {floor.power:.0%} of places only: they do not compute the same"
        )
    worst = max(float(one.regret.max()) for one in control)
    if worst > floor.regret:
        return (
            f"a control output, made without any transfer, has a token {worst:.3g} nats behind the best one: what the "
            "servers choose is not what they find best (penalties or biases in the request body?)"
        )
    return floor
