"""The log-probabilities of an answer's later tokens, which tell apart prompts that go on with the same words. Pure.

Loops, lists and boilerplate continue many prompts with the same tokens, but seldom with the same numbers. Of each token
two numbers are compared: its log-probability, and its margin over the best other token. They are known of a served
answer, of a teacher forcing, and of a continuation (continuations.py), so that no further request is needed.

Noise.    Right outputs beside their teacher forcings have the noise of the deployment: the limit of each number is that
          of first_token.py, from these differences. The distance of two tokens is that of the number that differs more,
          in limits of noise: 1 is the most that noise explains.
Against.  If one token of an answer, repeated or not, is farther than 1 from what it is under a prompt, the answer was
          not made from that prompt. In two clean runs on an H100 with bfloat16, 2 of 100 right outputs of 20 tokens had
          such a token: that costs a name and accuses nobody.
For.      At each position, the nearest of all other prompts under which the answer was forced lies at distance r. If
          that is nearer than FAR, the position shows nothing. Otherwise a wrong prompt is within d with a probability
          of (d / r)^2 or so, since there are two numbers, as for first tokens. A decoy that would not serve this token
          is far for that reason alone. So the probability is at least the share of all tokens of right answers whose
          two numbers are as near. It is doubled: in one run with SmolLM2, 11 of 102 decoys that served the same token
          agreed within d = 1, where 6.1 were expected; on the canary, none of 8.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import Operation, TokenLogprob
from harness.verify.judging.first_token import FAR, FARTHEST, MIN_RIGHT, limit_of_noise
from harness.verify.judging.forcing import Forced, ForcedTokens, compare_with_forcing
from harness.verify.judging.noise import Floats

_CAUTION = 2.0
"""Probabilities are taken to be so many times as large as estimated."""


@dataclass(frozen=True, slots=True)
class LaterTokens:
    """What the right outputs of a run tell of the log-probabilities of tokens."""

    limits: Floats
    """The limits of noise of a log-probability and of a margin, shape (2,), nats."""
    usual: Floats
    """Log-probability and margin of each token of the right outputs, shape (tokens, 2), nats."""

    @classmethod
    def of(cls, right: Sequence[Operation], forced: Mapping[str, Sequence[Operation]]) -> "LaterTokens | None":
        """From the ``right`` outputs; None if too few were forced. ``forced``: all forcings, by request id."""
        clean = list(_compared(right, forced))
        if len(clean) < MIN_RIGHT:
            return None
        errors = (np.concatenate([one.drift for one in clean]), np.concatenate([one.margin_error for one in clean]))
        known = [every[np.isfinite(every)] for every in errors]
        if not all(map(len, known)):
            return None
        usual = np.concatenate([_numbers(_served(one)) for one in right])
        return cls(np.array([limit_of_noise(list(every)) for every in known]), usual[np.isfinite(usual).all(axis=1)])

    def contradict(self, answer: Operation, under: ForcedTokens) -> bool:
        """Whether a token of the answer has another number than under the prompt, beyond noise."""
        return bool((self._apart(_served(answer), under) > 1.0).any())

    def chances(self, answer: Operation, under: ForcedTokens, others: Sequence[ForcedTokens]) -> Floats:
        """For each token, how likely another prompt that serves it too gives it the same numbers; shape (tokens,).

        ``under``: the answer under the candidate's prompt. ``others``: the answer under other prompts.
        """
        served, found = _served(answer), np.ones(len(under.logprob))
        # Both numbers must be known, and agree.
        fit = self._apart(served, under).max(axis=1)
        away = [self._apart(served, one).max(axis=1) for one in others]
        for index, (own, apart) in enumerate(zip(_numbers(served), fit, strict=False)):
            rest = [every[index] if index < len(every) else np.nan for every in away]
            found[index] = self._chance(own, float(apart), np.array(rest))
        return found

    def _chance(self, own: Floats, fit: float, away: Floats) -> float:
        """The probability at one position. ``fit``: the candidate's distance. ``away``: those of the others."""
        if not (fit <= 1.0 and len(away) and (away >= FAR).all()):
            return 1.0
        within = max(fit, 0.5)
        nearest = min(float(away.min()), FARTHEST / float(self.limits[0]))
        like = (np.abs(self.usual - own) <= within * self.limits).all(axis=1)
        # One is added to each count: a share of 0 would make any match certain.
        share = (float(like.sum()) + 1) / (len(like) + 1)
        return min(1.0, _CAUTION * max((within / nearest) ** 2, share))

    def _apart(self, one: ForcedTokens, other: ForcedTokens) -> Floats:
        """How far the numbers of the tokens that both have are apart; shape (tokens, 2), limits of noise.

        NaN where a number of one is not known.
        """
        both = min(len(one.logprob), len(other.logprob))
        return np.abs(_numbers(one)[:both] - _numbers(other)[:both]) / self.limits


def _compared(right: Sequence[Operation], forced: Mapping[str, Sequence[Operation]]) -> Iterator[Forced]:
    for one in right:
        found = compare_with_forcing(one, forced.get(one.request.request_id, ()))
        yield from () if isinstance(found, str) else found[:1]


def _served(answer: Operation) -> ForcedTokens:
    """The log-probabilities with which an answer was served, NaN where the server did not say."""
    choices = answer.ended.choices
    rows = choices[0].logprobs if choices else ()
    return ForcedTokens.of([row or TokenLogprob(0, np.nan) for row in rows])


def _numbers(tokens: ForcedTokens) -> Floats:
    """Log-probability and margin of each token, shape (tokens, 2), nats; NaN where they are not known."""
    numbers = np.stack([tokens.logprob, tokens.margin], axis=1)
    return np.where(np.isfinite(numbers), numbers, np.nan)
