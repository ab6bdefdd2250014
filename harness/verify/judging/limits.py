"""The limits of noise for the tokens of an output and for their average (averages.py), and which of them it exceeds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.averages import Kind, Usual, average, compared_length
from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats

ALPHA = 1e-3
"""Probability of a false alarm in a whole run: one in a thousand clean runs, three years of nightly ones."""
RESOLUTION = 1e-4
"""The lowest limit, nats: log-probabilities are float32 sums of a few logits of some tens, whose last bit is 4e-6. It
matters only if outputs show no noise at all: a limit of 0 would require exact equality."""
GROSS = 4.0
"""The highest limit of single tokens, nats: such a token is 55 times less likely than the best one. The largest regret
among 9,250 clean outputs on two H100s was 0.375 nats."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of noise."""

    regret: float
    """For the regret of one token, and for its margin error; nats."""
    drift: float
    """For the drift of one token, nats."""
    average: Mapping[tuple[Kind, int], float]
    """For the average errors of an output, by kind and by the length that is compared
    (:func:`averages.compared_length`); in multiples of the usual error of a token."""
    usual: Usual
    """The usual error of a token."""

    def times(self, factor: float) -> "Limits":
        """All limits multiplied."""
        average = {key: limit * factor for key, limit in self.average.items()}
        return Limits(self.regret * factor, self.drift * factor, average, self.usual)


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
    yield from _one_token(forced.drift, limits.drift, "log-probabilities")
    yield from _one_token(forced.margin_error, limits.regret, "margins over the second-best token")
    for kind in Kind:
        yield from _on_average(limits.usual.errors(forced, kind), kind, limits.average)


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


def _on_average(errors: Floats, kind: Kind, limits: Mapping[tuple[Kind, int], float]) -> Iterator[Exceedance]:
    length = compared_length(int(np.isfinite(errors).sum()))
    limit = math.inf if length is None else limits.get((kind, length), math.inf)
    if (shown := average(errors)) > limit:
        text = (
            f"its {kind} differ from teacher forcing by {shown:.3g} times the usual noise, on average over its tokens "
            f"(noise limit: {limit:.2g} times)"
        )
        yield Exceedance(None, text)
