"""How far a part of a series lies from the rest, by ranks.

A series is replaced by the normal scores of its ranks (van der Waerden), so that an outlier counts no more than the
next largest value. If the order of the values is chance, every order of the scores is equally likely, whatever the
noise: that is what the limits are computed from (``limits.py``). Equal values are ordered at random, from a fixed seed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.floating]

SHORTEST = 3
"""Nights that a level must last, at least. In fewer than 400 nights, three are not enough to be told from chance."""
_GROWTH = 1.25
"""Ratio of one length of an interval to the next: as fine as statistics of neighbouring lengths differ."""


def normal_scores(size: int) -> Floats:
    """The scores of ranks 1 to ``size``: mean 0, and sum of squares ``size - 1``."""
    scores = ndtri(np.arange(1, size + 1) / (size + 1))
    return np.asarray(scores * np.sqrt((size - 1) / np.sum(scores**2)))


def scored(values: Floats) -> Floats:
    """Each value's normal score; shape as ``values``, one dimension."""
    order = np.lexsort((np.random.default_rng(len(values)).permutation(len(values)), values))
    scores = np.empty(len(values))
    scores[order] = normal_scores(len(values))
    return scores


def interval_lengths(size: int) -> list[int]:
    """Lengths of the intervals that are looked at, up to half of the series."""
    found: list[int] = []
    length = SHORTEST
    while length <= size // 2:
        found.append(length)
        length = max(length + 1, int(length * _GROWTH))
    return found


def split_statistics(scores: Floats) -> Floats:
    """For each place between two levels, how far the two sides differ, in standard errors.

    ``scores``: shape (..., nights). Result: shape (..., nights - 2 * SHORTEST + 1), the first for a second level that
    begins at night ``SHORTEST``.
    """
    size = scores.shape[-1]
    places = np.arange(SHORTEST, size - SHORTEST + 1)
    sums = np.cumsum(scores, axis=-1)[..., places - 1]
    return np.asarray(np.abs(sums) / np.sqrt(places * (size - places) / size))


def interval_statistics(scores: Floats, length: int) -> Floats:
    """For each interval of this length, how far it differs from the rest; shape (..., nights - length + 1)."""
    size = scores.shape[-1]
    sums = np.cumsum(np.concatenate([np.zeros((*scores.shape[:-1], 1), scores.dtype), scores], axis=-1), axis=-1)
    return np.asarray(np.abs(sums[..., length:] - sums[..., :-length]) / np.sqrt(length * (size - length) / size))
