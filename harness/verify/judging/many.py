"""Many outputs that are doubtful each by itself, and together are no noise. Pure.

Control outputs have the same prompts as the load's, the same concurrency, and no transfer. If the load's outputs show
nothing but noise, the two are exchangeable: which of all of them are the noisiest is a matter of chance, whatever the
noise's distribution is. So where K of N outputs and c of m control outputs are beyond the near limits, at least K of
these K + c are the load's with the probability of a hypergeometric draw. Damage that moves every token a little (K and
V scaled by 1 %, say) puts many outputs there, and none of the control outputs.

The near limits come from the same control outputs, which are therefore beyond them a little more seldom than the load's
are: the probability is somewhat too small where noise has a heavy tail and controls are few. How often clean runs are
accused for that is measured by ``bench.false_alarms``, and is not to be taken from ``SHARE``.

Outputs that are longer than every control output are left out: they have more tokens to go beyond a limit with.
"""

from collections.abc import Sequence
from math import comb

from harness.verify.judging.floor import ALPHA
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Limits, crossings

SHARE = ALPHA / 10
"""Probability that a clean run is accused by this rule, if limits were independent of the control outputs: a tenth of
what the limits may come to."""


def no_chance(outputs: Sequence[Forced], controls: Sequence[Forced], near: Limits) -> str:
    """Why so many outputs beyond the ``near`` limits are no noise; empty where chance explains them."""
    longest = max((one.tokens for one in controls), default=0)
    compared = [one for one in outputs if one.tokens <= longest]
    beyond, theirs = (sum(_is_beyond(one, near) for one in side) for side in (compared, controls))
    if not beyond or by_chance(beyond, len(compared), theirs, len(controls)) > SHARE:
        return ""
    return (
        f"{beyond:,} of {len(compared):,} outputs show more than the control outputs make likely, and {theirs:,} of "
        f"{len(controls):,} control outputs do: so many are no noise"
    )


def by_chance(beyond: int, outputs: int, theirs: int, controls: int) -> float:
    """Probability that of ``beyond + theirs`` outputs drawn from all, ``beyond`` at least are the load's."""
    drawn = beyond + theirs
    ways = (comb(outputs, own) * comb(controls, drawn - own) for own in range(beyond, min(drawn, outputs) + 1))
    # Integers of thousands of digits: their ratio is exact, and a float.
    return sum(ways) / comb(outputs + controls, drawn)


def _is_beyond(one: Forced, near: Limits) -> bool:
    return next(crossings(one, near, one.regret), None) is not None
