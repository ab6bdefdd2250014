"""The probability that an answer fits the prompt of another request by chance. Only informative tokens count. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from harness.verify.judging.forcing import ForcedTokens
from harness.verify.judging.noise import Floats

MAX_CHANCE = 1e-6
"""The largest probability of chance at which an owner is named: one wrong name in a million wrong outputs."""
MIN_INFORMATIVE = 4
"""Fewest informative tokens to name an owner. A product of fewer probabilities is too uncertain."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChanceMatch:
    """How likely tokens fit a prompt by chance, and on how many tokens this rests."""

    probability: float
    """Probability that they occur under a prompt that is not the owner's, 0 to 1."""
    informative: int
    """How many of the tokens are informative: their probability is below 1."""


def chance_match(  # noqa: PLR0913 - the last one is optional and keyword-only
    tokens: Tokens,
    others: Sequence[ForcedTokens],
    *,
    near: float,
    least: float,
    uninformative: Collection[int],
    numbers: Floats | None = None,
) -> ChanceMatch:
    """How likely ``tokens`` occur under prompts that are not their owner's.

    ``others``: the same tokens, from the first one on, forced under such prompts. ``near``: nats of regret up to which
    a token counts as the best one. ``least``: a lower bound of each token's probability. ``uninformative``: indices
    of tokens that do not count for another reason. ``numbers``: of each token, the probability that its numbers agree
    by chance where the token does (later_tokens.py).
    """
    probability = np.full(len(tokens), least)
    for other in others:
        forced = min(len(tokens), len(other.logprob))
        probability[:forced] = np.maximum(probability[:forced], probability_of_tokens(other, near)[:forced])
        # A token that was not forced under this prompt may be the best one there.
        probability[forced:] = 1.0
    if numbers is not None:
        # That both agree is no likelier than that one does; the two may depend on each other.
        probability = np.minimum(probability, numbers)
    probability[[index for index in uninformative if index < len(tokens)]] = 1.0
    return ChanceMatch(float(probability.prod()), int((probability < 1.0).sum()))


def probability_of_tokens(forced: ForcedTokens, near: float) -> Floats:
    """Of each token under the prompt; 1 for the best one, which a greedy server serves."""
    return np.where(forced.regret <= near, 1.0, np.exp(np.minimum(forced.logprob, 0.0)))


def repetitions(tokens: Tokens, length: int = 2) -> set[int]:
    """Indices of tokens that repeat a pair: the same token followed the same token before.

    ``length``: 3 for the same token after the same two.
    """
    seen: set[Tokens] = set()
    found: set[int] = set()
    for index in range(length - 1, len(tokens)):
        run = tokens[index - length + 1 : index + 1]
        if run in seen:
            found.add(index)
        seen.add(run)
    return found
