"""Is it a step, or a drift? Both are fitted to the nights around a change, and the better one is said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.nightly.ranks import Floats

NARROWEST = 6
"""Nights that a drift lasts, at least: a shorter one cannot be told from a step in the noise of nights."""
_BETTER = 6.0
"""By how much the drift's BIC must be better: strong evidence, by Kass and Raftery (1995)."""
_NEIGHBOURS = 5
_OUTLIER = 3.0
"""Robust standard deviations beyond which a night is pulled in before anything is fitted."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A drift from one level to another."""

    begin: int
    """The last night of the old level."""
    end: int
    """The first night of the new level."""


def ramp_instead(values: Floats, starts: Sequence[int]) -> Ramp | None:
    """The drift that explains the values better than levels that begin at ``starts``; None: the steps are better.

    ``values``: the nights from the beginning of the level before the first of the steps to the end of the last level.
    """
    values = pulled_in(values)
    steps = _bic(_error_of_levels(values, starts), len(values), 2 * len(starts) + 1)
    error, ramp = _best_ramp(values)
    if ramp is None or steps - _bic(error, len(values), 4) < _BETTER:
        return None
    return ramp


def pulled_in(values: Floats) -> Floats:
    """The values with outliers pulled in to the median of their neighbours plus or minus a few deviations."""
    padded = np.pad(values, _NEIGHBOURS, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    middle = np.median(around, axis=-1)
    spread = _OUTLIER * 1.4826 * np.median(np.abs(values - middle))
    return np.asarray(np.clip(values, middle - spread, middle + spread)) if spread else values


def _bic(error: float, size: int, parameters: int) -> float:
    # A fit without any error, as of values that were rounded, is as good as an error of one part in a million.
    return float(size * np.log(max(error / size, 1e-12)) + parameters * np.log(size))


def _error_of_levels(values: Floats, starts: Sequence[int]) -> float:
    return float(sum(np.sum((part - part.mean()) ** 2) for part in np.split(values, list(starts))))


def _best_ramp(values: Floats) -> tuple[float, Ramp | None]:
    """The ramp with the smallest sum of squares, among at most some hundred beginnings and ends."""
    size = len(values)
    grid = np.unique(np.linspace(0, size - 1, min(size, 60)).astype(int))
    pairs = [(a, b) for a in grid for b in grid if b - a >= NARROWEST - 1]
    if not pairs:
        return np.inf, None
    begins, ends = np.array(pairs).T
    shapes = np.clip((np.arange(size) - begins[:, None]) / (ends - begins)[:, None], 0.0, 1.0)
    shapes -= shapes.mean(axis=1, keepdims=True)
    centred = values - values.mean()
    explained = (shapes @ centred) ** 2 / np.sum(shapes**2, axis=1)
    best = int(np.argmax(explained))
    error = float(np.sum(centred**2) - explained[best])
    return error, Ramp(int(begins[best]), int(ends[best]))
