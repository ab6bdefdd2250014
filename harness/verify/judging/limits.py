"""The limits of noise for the tokens and averages (averages.py) of an output, and which of them it exceeds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.averages import average, compared_length
from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of noise, in nats."""

    regret: float
    """For the regret of one token, and for its margin error."""
    drift: float
    """For the drift of one token."""
    average_margin_error: Mapping[int, float]
    """For the averages of one output, by the length that is compared (:func:`averages.compared_length`)."""
    average_drift: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Exceedance:
    """A limit that an output exceeds."""

    first: int | None
    """The first output token that exceeds it, counted from 0; None for an average."""
    text: str
    wrong: int = 0
    """How many tokens exceed the limit, if it is the limit of regret: these tokens are wrong."""


def exceedances(forced: Forced, limits: Limits, regret: Floats, drawn: float = 0.0) -> Iterator[Exceedance]:
    """The limits that an output exceeds, the gravest first.

    ``regret``: the regret of each token, 0 if the sampler did not choose it freely; of shape (tokens,), nats.
    ``drawn``: the regret that random sampling alone may give a token, nats.
    """
    limit = limits.regret + drawn
    if (beyond := regret > limit).any():
        over = np.flatnonzero(beyond)
        at = int(over[0])
        text = f"{regret[at]:.3g} nats behind the best token by teacher forcing (noise limit: {limit:.2g} nats)"
        yield Exceedance(at, text, wrong=len(over))
    for values, limit, averages, what in (
        (forced.drift, limits.drift, limits.average_drift, "log-probabilities"),
        (forced.margin_error, limits.regret, limits.average_margin_error, "margins over the second-best token"),
    ):
        yield from _one_token(values, limit, what)
        yield from _on_average(values, averages, what)


def exceeds(forced: Forced, limits: Limits) -> bool:
    """Whether an output exceeds any of the limits."""
    return next(exceedances(forced, limits, forced.regret), None) is not None


def _one_token(values: Floats, limit: float, what: str) -> Iterator[Exceedance]:
    if (beyond := values > limit).any():
        over = np.flatnonzero(beyond)
        worst = float(np.nanmax(values))
        yield Exceedance(
            int(over[0]),
            f"the {what} of {len(over)} of {len(values)} tokens differ from teacher forcing by up to {worst:.3g} nats "
            f"(noise limit: {limit:.2g} nats)",
        )


def _on_average(values: Floats, limits: Mapping[int, float], what: str) -> Iterator[Exceedance]:
    length = compared_length(int(np.isfinite(values).sum()))
    limit = math.inf if length is None else limits.get(length, math.inf)
    if (shown := average(values)) > limit:
        text = f"its {what} differ from teacher forcing by {shown:.3g} nats on average (noise limit: {limit:.2g} nats)"
        yield Exceedance(None, text)
