"""How far a part of a series lies from the rest by chance alone.

The table has, for the largest of a series's statistics (``ranks.py``), what it exceeds with the given probability if
all orders of the nights are equally likely. ``python -m bench.trend --limits`` computes it from a million orders of
each length. Between lengths and between probabilities, limits are interpolated on their logarithms.
"""

from collections.abc import Mapping

import numpy as np

_ALPHAS = (1e-2, 1e-3, 1e-4, 2e-5)
_TABLE: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    12: ((2.659, 2.772, 2.772, 2.772), (2.772, 2.772, 2.772, 2.772)),
    14: ((2.793, 2.980, 3.002, 3.002), (2.914, 3.002, 3.002, 3.002)),
    17: ((2.854, 3.157, 3.311, 3.311), (3.111, 3.280, 3.311, 3.311)),
    20: ((2.948, 3.286, 3.489, 3.588), (3.213, 3.480, 3.600, 3.600)),
    25: ((3.036, 3.439, 3.710, 3.844), (3.336, 3.640, 3.850, 3.942)),
    30: ((3.111, 3.539, 3.844, 3.993), (3.446, 3.784, 4.031, 4.184)),
    40: ((3.216, 3.687, 4.053, 4.236), (3.598, 3.968, 4.279, 4.448)),
    50: ((3.279, 3.760, 4.159, 4.401), (3.696, 4.092, 4.422, 4.604)),
    70: ((3.366, 3.874, 4.293, 4.562), (3.844, 4.260, 4.639, 4.870)),
    100: ((3.451, 3.990, 4.433, 4.692), (3.980, 4.412, 4.778, 4.948)),
    140: ((3.505, 4.055, 4.493, 4.718), (4.102, 4.540, 4.926, 5.156)),
    200: ((3.557, 4.117, 4.599, 4.848), (4.227, 4.684, 5.076, 5.290)),
    280: ((3.608, 4.184, 4.641, 4.933), (4.330, 4.796, 5.197, 5.411)),
    400: ((3.654, 4.224, 4.689, 5.025), (4.436, 4.882, 5.293, 5.510)),
}
"""By number of nights: the limits of splits, and those of intervals, for each of ``_ALPHAS``."""
FEWEST = 20
"""Fewer nights cannot be told from chance on a page of many series: the most extreme order of them is not rare enough,
so that the strictest limits of fewer nights are values that no order exceeds."""


def split_limit(nights: int, alpha: float) -> float:
    """What the largest statistic of all splits exceeds with probability ``alpha``; ``nights``: at least ``FEWEST``."""
    return _limit(nights, alpha, 0)


def interval_limit(nights: int, alpha: float) -> float:
    """Like ``split_limit``, for all intervals."""
    return _limit(nights, alpha, 1)


def _limit(nights: int, alpha: float, kind: int) -> float:
    """Probabilities beyond the table count as its first or its last; more nights than it has, as its longest series."""
    lengths = list(_TABLE)
    of_alpha = [np.interp(-np.log(alpha), -np.log(_ALPHAS), _TABLE[length][kind]) for length in lengths]
    return float(np.interp(np.log(nights), np.log(lengths), of_alpha))
