"""How likely an answer fits another request's prompt by accident: only tokens that tell something are counted. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.verify.judging.forcing import ForcedTokens

CHANCE = 1e-6
"""An accusation of this kind must not be an accident: one in a million wrong outputs."""
FEWEST_TELLING = 4
"""Tokens that must tell: a chance multiplied from fewer rests on how well one or two probabilities are known."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Accident:
    """What tokens tell together."""

    chance: float
    """Probability that they come under a prompt that is not the owner's, 0 to 1."""
    telling: int
    """How many of them count in it."""


def by_accident(
    tokens: Tokens, others: Sequence[ForcedTokens], *, near: float, least: float, general: Collection[int]
) -> Accident:
    """The chance of ``tokens`` under prompts that are not their owner's.

    ``others``: the same tokens, from the first on, forced under such prompts. ``near``: nats of regret up to which a
    token counts as the best one. ``least``: the probability that any token has at least. ``general``: places that tell
    nothing for another reason.
    """
    probability = np.full(len(tokens), least)
    for other in others:
        known = min(len(tokens), len(other.logprob))
        as_good = np.where(other.regret[:known] <= near, 1.0, np.exp(np.minimum(other.logprob[:known], 0.0)))
        probability[:known] = np.maximum(probability[:known], as_good)
        probability[known:] = 1.0  # not forced under this prompt: it might be the best one there
    probability[[place for place in general if place < len(tokens)]] = 1.0
    return Accident(float(probability.prod()), int((probability < 1.0).sum()))


def repeated(tokens: Tokens) -> set[int]:
    """Places at which an answer repeats itself: the token before was followed by this one earlier in it."""
    seen: set[tuple[int, int]] = set()
    places: set[int] = set()
    for place, pair in enumerate(pairwise(tokens), 1):
        if pair in seen:
            places.add(place)
        seen.add(pair)
    return places
