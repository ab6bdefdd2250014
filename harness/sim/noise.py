"""What differs between two servings of one prompt with nothing wrong, as on bfloat16 hardware under load.

Rule 1. A chosen share of requests flips: the first token whose margin lies within ``epsilon`` comes out as the
runner-up, and the stream goes on from there. No other token ever flips.

Rule 2. Every reported log-probability carries a small normal error. Ranks stay as they are: the error never orders
two tokens the other way round.

Rule 3. Both are drawn from the request's id and the position, not from a shared stream: what a request gets does not
depend on who else is being served, so that a run can be done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.sim.language import Distribution, gauss, hash_text, mix, uniform

_STRIDE = 0xD1B54A32D192ED03


@dataclass(frozen=True, slots=True)
class Noise:
    """How much of it. The defaults are what one H200 showed at concurrency 32."""

    flip_rate: float = 0.15
    """Share of requests that flip at their first near tie; those without a near tie stay as they are."""
    epsilon: float = 0.0625
    """Largest margin that flips, nats: the last bit of a bfloat16 logit."""
    sigma: float = 0.007
    """Standard deviation of a reported log-probability, nats."""


QUIET = Noise(flip_rate=0.0, sigma=0.0)


@dataclass(slots=True)
class RequestNoise:
    """One sequence's share of it."""

    level: Noise
    key: int
    flips: bool

    @classmethod
    def of(cls, level: Noise, seed: int, request_id: str) -> "RequestNoise":
        """Drawn from the id alone (rule 3)."""
        key = mix(seed ^ hash_text(request_id))
        return cls(level, key, uniform(key) < level.flip_rate)

    def choose(self, following: Distribution) -> tuple[int, bool]:
        """The greedy token, and whether it is the runner-up by a benign flip."""
        best, second, margin = following.best()
        if self.flips and margin < self.level.epsilon:
            self.flips = False
            return second, True
        return best, False

    def logprob(self, exact: float, position: int, slot: int = 0) -> float:
        """A reported log-probability, nats."""
        if not self.level.sigma:
            return exact
        return min(0.0, exact + self.level.sigma * gauss(self.key + position * _STRIDE + slot))

    def ranked(
        self, ranking: Sequence[tuple[int, float]], position: int, *, flipped: bool = False
    ) -> list[tuple[int, float]]:
        """The leading tokens as reported: the best first, never out of order (rule 2)."""
        tokens = [token for token, _ in ranking]
        if flipped:
            tokens[:2] = tokens[1], tokens[0]
        reported: list[float] = []
        for slot, (_, exact) in enumerate(ranking):
            value = self.logprob(exact, position, slot)
            reported.append(min(value, reported[-1]) if reported else value)
        return list(zip(tokens, reported, strict=True))
