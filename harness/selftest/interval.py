"""Confidence intervals of shares from few trials, and the number of requests that a checker needs. Pure."""

from collections.abc import Callable, Sequence
from math import ceil, comb, log, log1p

CONFIDENCE = 0.95
_HALVINGS = 60
_EDGE = 1e-12


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact confidence interval of a binomial share.

    It contains the true share with at least this confidence. If all trials succeeded, Wilson's interval and the normal
    interval would have less.
    """
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes:
        low = _where_rises_to(tail, lambda share: _at_least(successes, trials, share))
    if successes < trials:
        high = 1 - _where_rises_to(tail, lambda share: _at_least(trials - successes, trials, share))
    return low, high


def _at_least(successes: int, trials: int, share: float) -> float:
    """Probability of ``successes`` or more."""
    return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes, trials + 1))


def _where_rises_to(level: float, rising: Callable[[float], float]) -> float:
    """The place on [0, 1] where a rising function reaches a level; 1 if the function stays below."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return high


Run = tuple[int, bool]
"""Number of bad requests in a run, and whether the run was caught."""


def power_per_strike(runs: Sequence[Run]) -> tuple[float, float]:
    """The probability q that one bad request is enough to catch its run: the likeliest value, and a lower bound.

    A run with k bad requests is caught with probability 1 - (1 - q)^k. Under the lower bound, these runs are twenty
    times less likely than under the likeliest q; if every run was caught, this is the exact bound. Runs without a bad
    request are left out.
    """
    struck = [run for run in runs if run[0]]
    if not any(caught for _, caught in struck):
        return 0.0, 0.0
    missed = not all(caught for _, caught in struck)
    likeliest = _where_rises_to(0.0, lambda q: -_slope(struck, q)) if missed else 1.0
    level = _log_likelihood(struck, likeliest) + log(1 - CONFIDENCE)
    return likeliest, likeliest * _where_rises_to(level, lambda part: _log_likelihood(struck, part * likeliest))


def _log_likelihood(runs: Sequence[Run], q: float) -> float:
    """Log-likelihood of q; it rises up to the likeliest q."""
    inside = min(max(q, _EDGE), 1 - _EDGE)
    return sum(log(1 - (1 - inside) ** k) if caught else k * log1p(-inside) for k, caught in runs)


def _slope(runs: Sequence[Run], q: float) -> float:
    """Slope of the log-likelihood; it falls everywhere."""
    q = min(max(q, _EDGE), 1 - _EDGE)
    return sum(k * (1 - q) ** (k - 1) / (1 - (1 - q) ** k) if caught else -k / (1 - q) for k, caught in runs)


def requests_needed(per_request: float, confidence: float = CONFIDENCE) -> int | None:
    """The requests that a run needs to be caught with this confidence; None if it is never caught.

    ``per_request``: probability that one request of the load is enough to catch the run.
    """
    if per_request <= 0:
        return None
    return 1 if per_request >= 1 else ceil(log(1 - confidence) / log1p(-per_request))
