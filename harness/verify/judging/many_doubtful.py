"""Whether more outputs exceed limits drawn from the control outputs alone than noise explains. Pure.

Damage that moves every output (K and V scaled by 1 % in all transfers, say) is part of the sample from which the limits
are drawn (floor.py), and hides itself. Control outputs have the same prompts as the load's outputs and the same
concurrency, but no KV transfer. If the load's outputs have nothing but noise, chance alone decides which of all outputs
exceed a limit, for any distribution of the noise. If K of N outputs of the load and c of m control outputs exceed it,
the share of the load in these K + c outputs is hypergeometric; its upper tail at K is the tested probability.

Control outputs from which a limit is drawn exceed it less often than others. So one half of them draws the limits and
the other half is counted, and then the other way round; both must show it.

Outputs longer than every control output are left out: they have more tokens that may exceed a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from harness.verify.judging.floor import control_limits
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import ALPHA, Limits, exceeds

SIGNIFICANCE = ALPHA / 10
"""Probability that a clean run fails this test: a tenth of the probability that the limits allow."""


@dataclass(frozen=True, slots=True)
class Many:
    """Too many outputs exceed limits drawn from the control outputs alone."""

    limits: Limits
    """Outputs beyond these are wrong."""
    text: str
    """How many there are."""


def beyond_controls(outputs: Sequence[Forced], controls: Sequence[Forced]) -> Many | None:
    """The limits that too many outputs exceed; None if chance explains how many exceed them."""
    longest = max((one.tokens for one in controls), default=0)
    compared = [one for one in outputs if one.tokens <= longest]
    halves = controls[::2], controls[1::2]
    found = [_beyond_half(compared, *pair) for pair in (halves, halves[::-1])]
    if not compared or None in found:
        return None
    limits = control_limits(controls, compared)
    if limits is None:
        return None
    exceeding, of_controls = (sum(exceeds(one, limits) for one in side) for side in (compared, controls))
    text = (
        f"{exceeding:,} of {len(compared):,} outputs exceed such limits, but only {of_controls:,} of {len(controls):,} "
        "control outputs do: too many to be noise"
    )
    return Many(limits, text)


def _beyond_half(outputs: Sequence[Forced], half: Sequence[Forced], other: Sequence[Forced]) -> Limits | None:
    """The limits of one half of the controls, if they are exceeded by too many outputs for what the other half does."""
    limits = control_limits(half, outputs) if half else None
    if limits is None:
        return None
    exceeding, of_controls = (sum(exceeds(one, limits) for one in side) for side in (outputs, other))
    if not exceeding or exceedance_probability(exceeding, len(outputs), of_controls, len(other)) > SIGNIFICANCE:
        return None
    return limits


def exceedance_probability(exceeding: int, outputs: int, of_controls: int, controls: int) -> float:
    """Probability by chance that so many or more of all exceeding outputs are the load's.

    ``exceeding`` of ``outputs`` of the load exceed the limits, and ``of_controls`` of ``controls``.
    """
    drawn = exceeding + of_controls
    ways = (comb(outputs, own) * comb(controls, drawn - own) for own in range(exceeding, min(drawn, outputs) + 1))
    # The integers have thousands of digits; their ratio is exact and a float.
    return sum(ways) / comb(outputs + controls, drawn)
