"""What stands for the model: KV contents of tokens, and what the model says next.

Rule 1. A token's KV is one 64-bit number, a hash of the token, its position and the *sum* of the KV of all tokens
before it. It is written once, into the slot of a block, and never looked at as anything but a number.

Rule 2. What the model says next is a function of the sum of the KV of all tokens so far, as read from the blocks.
Stale, foreign, shifted or missing KV changes that sum, and with it every later token; nothing else does.

Rule 3. A sum does not know its order. That is deliberate: keys are rotated before they are cached, so attention over
whole blocks does not depend on their order either. Swapping two whole blocks is invisible to the request that does
it and poisons whoever finds one of them in the prefix cache.

Rule 4. A distribution is drawn from the sum's hash: best token, margin to the second (exponential: median 0.69 nats,
as measured on a small random Llama), and a geometric rest that adds up to one. Whoever reads the same KV, by decoding
or by teacher forcing, gets the same distribution; only the noise (noise.py) differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, log1p
from statistics import NormalDist

MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_A, _B = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_TOKEN, _POSITION = 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
_NORMAL = NormalDist()
_TWENTY_BITS = 1 << 20
CANDIDATES = 8
"""Ranks that have tokens of their own; everything behind them shares a tail."""
_FALL = [step * log(0.6) for step in range(CANDIDATES)]


def mix(x: int) -> int:
    """A 64-bit number that looks unrelated to ``x`` (splitmix64's finalizer)."""
    x = (x + _GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * _A) & MASK
    x = ((x ^ (x >> 27)) * _B) & MASK
    return x ^ (x >> 31)


def hash_text(text: str) -> int:
    """64 bits of a string; the same in every process, unlike ``hash``."""
    state = len(text)
    for byte in text.encode():
        state = mix(state ^ byte)
    return state


def gauss(key: int) -> float:
    """A standard normal drawn from a key: the same key, the same number."""
    return _NORMAL.inv_cdf(((mix(key) >> 12) + 0.5) / (1 << 52))


def uniform(key: int) -> float:
    """A number in [0, 1) drawn from a key."""
    return (mix(key) >> 11) / (1 << 53)


def token_kv(total: int, token: int, position: int) -> int:
    """The KV of one token, given the sum of the KV before it (rule 1)."""
    x = (total ^ (token * _TOKEN + position * _POSITION)) & MASK
    x = ((x ^ (x >> 32)) * _A) & MASK
    return ((x ^ (x >> 29)) * _B) & MASK


def extend(total: int, tokens: Sequence[int], position: int) -> tuple[list[int], int]:
    """The KV of consecutive tokens, and the sum after the last of them."""
    rows = []
    for index, token in enumerate(tokens, position):
        row = token_kv(total, token, index)
        rows.append(row)
        total = (total + row) & MASK
    return rows, total


def truth(tokens: Sequence[int]) -> int:
    """The sum that a model which computed everything itself would have after these tokens."""
    return extend(0, tokens, 0)[1]


@dataclass(frozen=True, slots=True)
class Language:
    """Which tokens there are to say."""

    vocab_size: int
    first_word: int
    """Tokens below are special or bytes and are not generated, except for the end of sequence."""
    eos: int
    eos_rate: float = 0.0
    """How often the best token is the end of sequence."""

    def distribution(self, total: int, drift: float = 0.0) -> "Distribution":
        """What comes next after KV that sums to ``total``."""
        return Distribution(self, mix(total ^ _TOKEN), drift)

    def word(self, bits: int) -> int:
        """A generated token for some bits."""
        return self.first_word + bits % (self.vocab_size - self.first_word)


class Distribution:
    """Next-token probabilities, computed as far as somebody asks.

    ``drift`` is the strain of numerically wrong KV (scaled by a little): it moves logits without being other KV.
    """

    __slots__ = ("_best", "_drift", "_language", "_more", "_rest", "_second", "_state", "_top", "margin")

    def __init__(self, language: Language, state: int, drift: float) -> None:
        self._language, self._state, self._drift = language, state, drift
        self.margin = -log1p(-((state & (_TWENTY_BITS - 1)) + 0.5) / _TWENTY_BITS)
        """Between best and second, in nats, before drift."""
        ends = ((state >> 20) & 0xFFFF) < language.eos_rate * 0x10000
        self._best = language.eos if ends else language.word(state >> 36)
        self._more = mix(state)
        second = language.word(self._more >> 20)
        self._second = second if second != self._best else language.word(self._more + 1)
        self._rest = 0.2 + 1.8 * (self._more & (_TWENTY_BITS - 1)) / _TWENTY_BITS
        """Probability of everything behind the second, in units of the second's."""
        self._top = -log1p(exp(-self.margin) * (1.0 + self._rest))

    def best(self) -> tuple[int, int, float]:
        """Best token, second token, and the margin between them in nats."""
        if not self._drift:
            return self._best, self._second, self.margin
        (first, high), (second, low) = self.ranking()[:2]
        return first, second, high - low

    def ranking(self, count: int = CANDIDATES) -> list[tuple[int, float]]:
        """The leading tokens with their log-probabilities, best first."""
        if self._drift:
            return self._strained()[:count]
        leading = [(self._best, self._top), (self._second, self._top - self.margin)]
        return leading[:count] if count <= 2 else leading + self._followers()[: count - 2]

    def top_logprob(self) -> float:
        """Log-probability of the best token."""
        return self.ranking(1)[0][1]

    def look_up(self, token: int) -> tuple[float, int]:
        """A token's log-probability and its rank, counted from 1."""
        if token == self._best and not self._drift:
            return self._top, 1
        ranking = self.ranking()
        for rank, (candidate, logprob) in enumerate(ranking, 1):
            if candidate == token:
                return logprob, rank
        depth = uniform(self._state ^ (token * _POSITION & MASK))
        behind = self._language.vocab_size - CANDIDATES
        return ranking[-1][1] - 0.5 - 4.0 * depth, CANDIDATES + 1 + int(depth * behind)

    def _followers(self) -> list[tuple[int, float]]:
        """From the third on: tokens a fixed stride apart, so that no two are the same."""
        first, words = self._language.first_word, self._language.vocab_size - self._language.first_word
        bits = mix(self._more)
        start, stride = bits & 0xFFFFFFFF, 1 + (bits >> 40) % (words // (CANDIDATES + 1))
        tokens = [first + (start + step * stride) % words for step in range(CANDIDATES)]
        tokens = [token for token in tokens if token not in (self._best, self._second)]
        third = self._top - self.margin + log(0.4 * self._rest)
        return [(token, third + _FALL[step]) for step, token in enumerate(tokens[: CANDIDATES - 2])]

    def _strained(self) -> list[tuple[int, float]]:
        leading = [(self._best, self._top), (self._second, self._top - self.margin), *self._followers()]
        moved = [
            (token, logprob + self._drift * gauss(self._state ^ (token * _TOKEN & MASK))) for token, logprob in leading
        ]
        behind = 1.0 - sum(exp(logprob) for _, logprob in leading)
        total = log(sum(exp(logprob) for _, logprob in moved) + behind)
        return sorted(((token, logprob - total) for token, logprob in moved), key=lambda item: -item[1])
