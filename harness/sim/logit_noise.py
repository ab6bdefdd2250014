"""Noise on the logits: what two correct forward passes differ by, put in before the softmax.

Rule 1. A *pass* is one sequence on one server: a prompt on prefill, its answer on decode, a teacher forcing, a probe.
Each draws its own error for each position and token; the same request sent again under the same id draws the same.

Rule 2. An error moves a logit, and nothing else. The served token is the arg max of the moved logits, and reported
log-probabilities are their softmax, so that flips, margins, drifts and ranks all follow from the same errors.

Rule 3. An error comes from one hash of its pass, position and token, by Box and Muller's method (normal) or Bailey's
(Student's t). It does not depend on other requests.

Rule 4. Tokens that share a logit are tied. The one with the lowest id is served. A token's rank is counted as vLLM
counts it: how many tokens are at least as likely (``batched_count_greater_than`` in v1/sample/ops/logprobs.py).

The scales are such that two passes over one prompt answer with another text in some 15 % of answers of 20 tokens, and
that most log-probabilities move by less than 0.1 nats. On two H100s in bfloat16, 11 % and 20 % of the answers differed,
for two models, and 99 % of the log-probabilities moved by less than 0.12 nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, exp, frexp, ldexp, log, pi, sqrt
from operator import itemgetter

from harness.sim.language import CANDIDATES, Distribution, mix, uniform

_POSITION, _TOKEN = 0x9FB21C651E98DF25, 0xC2B2AE3D27D4EB4F
_PASS, _SPOT = 0x165667B19E3779F9, 0x27D4EB2F165667C5
_HALF, _LOW = 1 << 32, (1 << 32) - 1

STUDENT_SCALE = 0.0075
"""Nats by which one unit of Student's t moves a logit."""
DEGREES = 3
"""Degrees of freedom of Student's t: the variance is finite, the fourth moment is not."""
MIXTURE_SIGMA = 0.008
"""Standard deviation of an ordinary logit's error in the mixture, in nats."""
NOISY_SHARE = 0.02
"""Share of the positions that are noisier, and share of the passes that are."""
NOISY_POSITION, NOISY_PASS = 10.0, 5.0
"""How many times noisier such a position is, and such a pass; where both hold, the larger counts."""
BATCH_SIGMA = 0.01
"""Standard deviation of the error that a logit has before it is rounded, in nats: sums in another order."""
_BFLOAT16_BITS = 8
"""Bits of a bfloat16's significand, the hidden one included: a step is 1/128 of the number's power of two."""


def normal(bits: int) -> float:
    """A standard normal number from 64 random bits (Box and Muller)."""
    return sqrt(-2.0 * log(((bits >> 32) + 0.5) / _HALF)) * cos(2.0 * pi * (bits & _LOW) / _HALF)


def student_t(bits: int) -> float:
    """A number with Student's t distribution of `DEGREES` degrees of freedom, from 64 random bits (Bailey, 1994)."""
    radius = sqrt(DEGREES * ((((bits >> 32) + 0.5) / _HALF) ** (-2.0 / DEGREES) - 1.0))
    return radius * cos(2.0 * pi * (bits & _LOW) / _HALF)


def to_bfloat16(value: float) -> float:
    """The nearest number that a bfloat16 can hold; of two that are as near, the even one. No logit is subnormal."""
    significand, exponent = frexp(value)
    return ldexp(round(ldexp(significand, _BFLOAT16_BITS)), exponent - _BFLOAT16_BITS)


@dataclass(slots=True)
class Pass:
    """One forward pass, which its key determines (rule 1)."""

    key: int
    move: "Move"

    def moved(self, position: int, leading: list[tuple[int, float]], level: float) -> list[tuple[int, float]]:
        """Tokens and their moved logits, less ``level``, from tokens and exact logits less ``level``."""
        return self.move(self.key, (self.key ^ position * _POSITION) + 1, leading, level)


Leading = list[tuple[int, float]]
Move = Callable[[int, int, Leading, float], Leading]
"""From the pass's key, the key of the pass at a position, exact logits by token, and the level above which they are."""


def _student(_key: int, spot: int, leading: Leading, _level: float) -> Leading:
    return [(token, logit + STUDENT_SCALE * student_t(mix(spot + token * _TOKEN))) for token, logit in leading]


def _mixture(key: int, spot: int, leading: Leading, _level: float) -> Leading:
    sigma = MIXTURE_SIGMA * noisiness(key, spot)
    return [(token, logit + sigma * normal(mix(spot + token * _TOKEN))) for token, logit in leading]


def noisiness(key: int, spot: int) -> float:
    """How many times noisier than usual a position is, in the mixture."""
    if uniform(spot ^ _SPOT) < NOISY_SHARE:
        return NOISY_POSITION
    return NOISY_PASS if uniform(key ^ _PASS) < NOISY_SHARE else 1.0


def _quantised(_key: int, spot: int, leading: Leading, level: float) -> Leading:
    return [
        (token, to_bfloat16(level + logit + BATCH_SIGMA * normal(mix(spot + token * _TOKEN))) - level)
        for token, logit in leading
    ]


MOVES: dict[str, Move] = {"student": _student, "mixture": _mixture, "quantised": _quantised}
"""The kinds of noise on logits."""


_LOGIT = itemgetter(1)


class NoisyDistribution:
    """The next token's distribution as one pass computes it; it answers what `Distribution` answers.

    The tokens that share the tail keep their probability together: of thousands of errors the sum hardly moves.
    """

    __slots__ = ("_exact", "_pass", "_position", "_ranking", "_total")

    def __init__(self, exact: Distribution, of: Pass, position: int) -> None:
        self._exact, self._pass, self._position = exact, of, position
        leading = exact.ranking()
        moved = of.moved(position, leading, exact.level)
        tail = 1.0
        for _, logprob in leading:
            tail -= exp(logprob)
        self._total = total = log(sum([exp(logit) for _, logit in moved]) + tail)
        # Python's sort is stable: of tied tokens the lowest comes first.
        moved.sort()
        moved.sort(key=_LOGIT, reverse=True)
        self._ranking = [(token, logit - total) for token, logit in moved]

    def best(self) -> tuple[int, int, float]:
        """Return the best token, the second token, and the margin between them in nats."""
        (first, high), (second, low) = self._ranking[:2]
        return first, second, high - low

    def ranking(self, count: int = CANDIDATES) -> list[tuple[int, float]]:
        """Return the leading tokens with their log-probabilities, best first."""
        return self._ranking[:count]

    def top_logprob(self) -> float:
        """Return the log-probability of the best token."""
        return self._ranking[0][1]

    def look_up(self, token: int) -> tuple[float, int]:
        """Return a token's log-probability and its rank, counted from 1 (rule 4)."""
        for candidate, logprob in self._ranking:
            if candidate == token:
                return logprob, sum(other >= logprob for _, other in self._ranking)
        exact, rank = self._exact.look_up(token)
        [(_, logit)] = self._pass.moved(self._position, [(token, exact)], self._exact.level)
        return logit - self._total, rank
