"""Limits of noise, and which of them an output crosses.

Single tokens are compared, and averages over an output's tokens (averages.py).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.averages import average, compared_length
from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats


@dataclass(frozen=True, slots=True)
class Limits:
    """All in nats."""

    regret: float
    """Of one token; its margin error has the same."""
    drift: float
    """Of one token."""
    average_margin_error: Mapping[int, float]
    """Of one output, by the length that it is compared at (:func:`averages.compared_length`)."""
    average_drift: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit that an output crosses."""

    first: int
    """The first output token that does, counted from 0; 0 for an average."""
    text: str
    wrong: int = 0
    """Tokens whose regret is beyond the limit."""


def crossings(forced: Forced, limits: Limits, regret: Floats, drawn: float = 0.0) -> Iterator[Crossing]:
    """The limits that an output crosses, the gravest first.

    ``regret``: of the tokens that were chosen freely, of shape (tokens,), nats; ``drawn``: regret that a token may
    have by a random draw alone, nats.
    """
    limit = limits.regret + drawn
    if (beyond := regret > limit).any():
        over = np.flatnonzero(beyond)
        at = int(over[0])
        yield Crossing(
            at,
            f"{regret[at]:.3g} nats behind the best (noise ends at {limit:.2g})",
            wrong=len(over),
        )
    for values, most, averages, what in (
        (forced.drift, limits.drift, limits.average_drift, "log-probabilities"),
        (forced.margin_error, limits.regret, limits.average_margin_error, "leads over the next"),
    ):
        yield from _one_token(values, most, what)
        yield from _on_average(values, averages, what)


def _one_token(values: Floats, limit: float, what: str) -> Iterator[Crossing]:
    if (beyond := values > limit).any():
        over = np.flatnonzero(beyond)
        worst = float(np.nanmax(values))
        yield Crossing(
            int(over[0]),
            f"the {what} of {len(over)} of {len(values)} tokens are off by up to {worst:.3g} nats (noise ends at "
            f"{limit:.2g})",
        )


def _on_average(values: Floats, limits: Mapping[int, float], what: str) -> Iterator[Crossing]:
    length = compared_length(int(np.isfinite(values).sum()))
    limit = math.inf if length is None else limits.get(length, math.inf)
    if (shown := average(values)) > limit:
        yield Crossing(0, f"its {what} are off by {shown:.3g} nats on average (noise ends at {limit:.2g})")
