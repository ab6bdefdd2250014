"""Where warm-up ends: the test MSER-5, by which simulations find it (White, Cobb and Spratt, 2000). Pure.

The latencies of the requests, in the order in which they were due, are averaged in batches of five. For each number d
of batches left out at the beginning, the standard error of the mean of the others is computed. Warm-up is the d for
which it is smallest: leaving out more costs evidence, leaving out less lets the unusual beginning spread the rest. If
that d is half of the batches or more, or fewer than LEAST_BATCHES batches are there, no steady state was seen. Nor was
one if the rest still drifts: it is cut into ten parts, and the means of the first five and of the last five differ by
more than MOST_DRIFT standard errors.

The steady state ends when the last request is due: from then on fewer and fewer requests are served beside each other.
Without a limit of concurrency or of rate, all requests are due at once, and there is no steady state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BATCH = 5
LEAST_BATCHES = 20
MOST_DRIFT = 4.0
"""Student's t with 8 degrees of freedom exceeds it in 4 of 1,000 steady loads."""


@dataclass(frozen=True, slots=True)
class SteadyState:
    """The part of the requests that is steady, in the order in which they were due."""

    first: int
    """Index of the first request after warm-up."""


def steady_state(latencies: Sequence[float] | npt.NDArray[np.float64]) -> SteadyState | None:
    """The steady state of latencies in seconds, in the order due; None if there is none or too little to tell."""
    batches = np.asarray(latencies[: len(latencies) // BATCH * BATCH], np.float64).reshape(-1, BATCH).mean(axis=1)
    count = len(batches)
    if count < LEAST_BATCHES:
        return None
    kept = np.arange(count, count // 2, -1)  # how many batches stay if 0, 1, 2, ... are left out
    # Sums of the last k batches, about the mean of all so that squares lose no digits.
    around = (batches - batches.mean())[::-1]
    sums, squares = np.cumsum(around)[kept - 1], np.cumsum(around**2)[kept - 1]
    errors = (squares - sums**2 / kept) / kept.astype(np.float64) ** 2
    best = int(np.argmin(errors))
    return None if best == len(kept) - 1 or _drifts(batches[best:]) else SteadyState(best * BATCH)


def _drifts(batches: npt.NDArray[np.float64]) -> bool:
    """Whether the later half differs from the earlier one by more than chance explains."""
    parts = np.array([part.mean() for part in np.array_split(batches, 10)])
    early, late = parts[:5], parts[5:]
    error = ((early.var(ddof=1) + late.var(ddof=1)) / 5) ** 0.5
    return bool(abs(late.mean() - early.mean()) > MOST_DRIFT * error)
