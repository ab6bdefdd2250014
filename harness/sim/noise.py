"""Benign noise: the differences between two correct answers to one prompt on bfloat16 hardware under load.

There are several kinds. `usual` acts on what is served and reported, by the rules below, and was measured. `none` is
none. `student`, `mixture` and `quantised` act on the logits (logit_noise.py); the rule for outputs is not derived from
them.

Rule 1. A share of the requests flips: the first token whose margin is below ``epsilon`` is replaced by the runner-up,
and generation continues from there. No other token flips.

Rule 2. Every reported log-probability has a small normal error. The error never changes the order of two tokens.

Rule 3. Both are drawn from the request's id, its side (P's part or D's) and the position. They do not depend on other
requests, so that a run can be repeated exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.sim.language import Distribution, gauss, hash_text, mix, uniform
from harness.sim.logit_noise import MOVES, NoisyDistribution, Pass

_STRIDE = 0xD1B54A32D192ED03
USUAL = "usual"
KINDS = (USUAL, "none", *MOVES)
"""The kinds of noise, by the name that the user gives."""


def check_kind(kind: str) -> str:
    """The kind of noise, unchanged. Raises UsageError if there is none of this name."""
    if kind not in KINDS:
        raise UsageError(f"There is no simulated noise {kind!r}: give one of {', '.join(KINDS)}.")
    return kind


@dataclass(frozen=True, slots=True)
class Noise:
    """How much noise of the kind `usual` there is. The defaults were measured on one H200 at concurrency 32."""

    flip_rate: float = 0.15
    """Share of requests that flip at their first near tie, if they have one."""
    epsilon: float = 0.0625
    """A token with a smaller margin, in nats, is a near tie. The default is the last bit of a bfloat16 logit."""
    sigma: float = 0.007
    """Standard deviation of the error of a reported log-probability, in nats."""


QUIET = Noise(flip_rate=0.0, sigma=0.0)


@dataclass(slots=True)
class RequestNoise:
    """The noise of one sequence."""

    level: Noise
    key: int
    flips: bool
    logits: Pass | None = None
    """The noise on its logits, if its kind is one of those."""

    @classmethod
    def of(cls, level: Noise, seed: int, request_id: str, kind: str = USUAL, server: str = "") -> "RequestNoise":
        """Draw the noise from the request's id (rule 3), and noise on logits from the server's name too."""
        key = mix(seed ^ hash_text(request_id))
        if kind == USUAL:
            return cls(level, key, uniform(key) < level.flip_rate)
        move = MOVES.get(kind)
        return cls(QUIET, key, flips=False, logits=move and Pass(mix(key ^ hash_text(server)), move))

    def on_logits(self, exact: Distribution, position: int) -> Distribution | NoisyDistribution:
        """The distribution of the token at a position, as this sequence's forward pass computes it."""
        return NoisyDistribution(exact, self.logits, position) if self.logits else exact

    def choose(self, following: Distribution | NoisyDistribution) -> tuple[int, bool]:
        """Choose a token greedily; return it, and whether it is the runner-up because of a flip."""
        best, second, margin = following.best()
        if self.flips and margin < self.level.epsilon:
            self.flips = False
            return second, True
        return best, False

    def logprob(self, exact: float, position: int, slot: int = 0) -> float:
        """Return the reported log-probability, in nats."""
        if not self.level.sigma:
            return exact
        return min(0.0, exact + self.level.sigma * gauss(self.key + position * _STRIDE + slot))

    def ranked(
        self, ranking: Sequence[tuple[int, float]], position: int, *, flipped: bool = False
    ) -> list[tuple[int, float]]:
        """Return the leading tokens with their reported log-probabilities, best first (rule 2)."""
        tokens = [token for token, _ in ranking]
        if flipped:
            tokens[:2] = tokens[1], tokens[0]
        reported: list[float] = []
        for slot, (_, exact) in enumerate(ranking):
            value = self.logprob(exact, position, slot)
            reported.append(min(value, reported[-1]) if reported else value)
        return list(zip(tokens, reported, strict=True))
