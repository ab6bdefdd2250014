"""Whether more outputs are doubtful than noise explains. Pure.

Damage that moves every token a little (K and V scaled by 1 %, say) makes many outputs of the load exceed the near
limits, and no control output. Control outputs have the same prompts as the load's outputs and the same concurrency, but
no KV transfer. If the load's outputs have nothing but noise, chance alone decides which of all outputs exceed the near
limits, for any distribution of the noise. If K of N outputs of the load and c of m control outputs exceed them, the
share of the load in these K + c outputs is hypergeometric; its upper tail at K is the tested probability.

The near limits come from the same control outputs, which therefore exceed them a little less often than the load's
outputs do. So the probability is somewhat too small if noise has a heavy tail and controls are few.
``bench.false_alarms`` measures how often clean runs are found invalid for this reason; it may differ from
``SIGNIFICANCE``.

Outputs longer than every control output are left out: they have more tokens that may exceed a limit.
"""

from collections.abc import Sequence
from math import comb

from harness.verify.judging.floor import ALPHA
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, exceeds

SIGNIFICANCE = ALPHA / 10
"""Probability that a clean run fails this test, if the limits were independent of the control outputs: a tenth of the
probability that the limits allow."""


def too_many_doubtful(outputs: Sequence[Forced], controls: Sequence[Forced], near: Limits) -> str:
    """Why the outputs that exceed the ``near`` limits are too many to be noise; empty if chance explains them."""
    longest = max((one.tokens for one in controls), default=0)
    compared = [one for one in outputs if one.tokens <= longest]
    exceeding, of_controls = (sum(exceeds(one, near) for one in side) for side in (compared, controls))
    if not exceeding or exceedance_probability(exceeding, len(compared), of_controls, len(controls)) > SIGNIFICANCE:
        return ""
    return (
        f"{exceeding:,} of {len(compared):,} outputs exceed such limits, but only {of_controls:,} of {len(controls):,} "
        "control outputs do: too many to be noise"
    )


def exceedance_probability(exceeding: int, outputs: int, of_controls: int, controls: int) -> float:
    """Probability by chance that so many or more of all exceeding outputs are the load's.

    ``exceeding`` of ``outputs`` of the load exceed the limits, and ``of_controls`` of ``controls``.
    """
    drawn = exceeding + of_controls
    ways = (comb(outputs, own) * comb(controls, drawn - own) for own in range(exceeding, min(drawn, outputs) + 1))
    # The integers have thousands of digits; their ratio is exact and a float.
    return sum(ways) / comb(outputs + controls, drawn)
