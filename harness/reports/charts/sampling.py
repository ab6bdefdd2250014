"""Which requests are drawn if there are more than a chart has room for. Pure."""

from collections.abc import Sequence

import numpy as np

from harness.reports.charts.grid import Whole


def sample(ranks: Sequence[int], most: int) -> Whole:
    """Places of at most ``most`` items, ascending: those of the lowest ranks first, and of each rank evenly spread.

    ``ranks``: how important each item is, 0 the most; the items are in the order of time.
    """
    given = np.asarray(ranks, np.int64)
    chosen = [np.empty(0, np.int64)]
    for rank in np.unique(given).tolist():
        places = np.flatnonzero(given == rank)
        chosen.append(_spread(places, most - sum(map(len, chosen))))
    return np.sort(np.concatenate(chosen))


def _spread(places: Whole, most: int) -> Whole:
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, max(most, 0)).round().astype(np.int64)]


def shown_of(shown: int, every: int, what: str) -> str:
    """``600 of 10,000 requests``, or ``all 600 requests``."""
    return f"all {every:,} {what}" if shown == every else f"{shown:,} of {every:,} {what}"
