"""Whether more outputs are doubtful than noise explains. Pure.

Control outputs have the same prompts as the load's outputs, the same concurrency, and no KV transfer. If the load's
outputs hold nothing but noise, load and control outputs are exchangeable: which of them exceed the near limits is a
matter of chance, whatever the distribution of the noise. So where K of N outputs and c of m control outputs are
exceedances, the number of the load's among these K + c is hypergeometric; its upper tail at K is the probability that
is tested. Damage that moves every token a little (K and V scaled by 1 %, say) makes many outputs of the load exceed the
near limits, and no control output.

The near limits come from the same control outputs, which therefore exceed them a little less often than the load's do:
the probability is somewhat too small where noise has a heavy tail and controls are few. How often clean runs are found
invalid for this reason is measured by ``bench.false_alarms``, and may differ from ``SIGNIFICANCE``.

Outputs longer than every control output are left out: they have more tokens that may exceed a limit.
"""

from collections.abc import Sequence
from math import comb

from harness.verify.judging.floor import ALPHA
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, exceedances

SIGNIFICANCE = ALPHA / 10
"""Probability that a clean run fails this test, if the limits were independent of the control outputs: a tenth of what
the limits allow themselves."""


def too_many_doubtful(outputs: Sequence[Forced], controls: Sequence[Forced], near: Limits) -> str:
    """Why the outputs that exceed the ``near`` limits are too many to be noise; empty if chance explains them."""
    longest = max((one.tokens for one in controls), default=0)
    compared = [one for one in outputs if one.tokens <= longest]
    exceeding, of_controls = (sum(_exceeds(one, near) for one in side) for side in (compared, controls))
    if not exceeding or exceedance_probability(exceeding, len(compared), of_controls, len(controls)) > SIGNIFICANCE:
        return ""
    return (
        f"{exceeding:,} of {len(compared):,} outputs exceed such limits, but only {of_controls:,} of {len(controls):,} "
        "control outputs do: too many to be noise"
    )


def exceedance_probability(exceeding: int, outputs: int, of_controls: int, controls: int) -> float:
    """Probability that ``exceeding`` or more of all exceedances are the load's, if load and controls are exchangeable.

    ``exceeding`` of ``outputs`` and ``of_controls`` of ``controls`` are exceedances.
    """
    drawn = exceeding + of_controls
    ways = (comb(outputs, own) * comb(controls, drawn - own) for own in range(exceeding, min(drawn, outputs) + 1))
    # The integers have thousands of digits; their ratio is exact and a float.
    return sum(ways) / comb(outputs + controls, drawn)


def _exceeds(one: Forced, near: Limits) -> bool:
    return next(exceedances(one, near, one.regret), None) is not None
