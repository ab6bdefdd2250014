"""The simulated model: the KV of tokens, and the distribution of the next token.

Rule 1. A token's KV is one 64-bit number: a hash of the token, its position and the *sum* of the KV of all tokens
before it. The number is written once, into its slot of a block.

Rule 2. The next token is a function of the sum of the KV of all tokens so far, as read from the blocks. Stale, foreign,
shifted or missing KV changes that sum, and with it every later token. Nothing else changes them.

Rule 3. A sum does not depend on the order of its terms. This is deliberate: real keys are rotated before they are
cached, so real attention does not depend on the order of whole blocks either. Swapping two whole blocks does not change
the request's own output, but any later request that hits one of them in the prefix cache reads wrong KV.

Rule 4. The distribution is drawn from the hash of the sum: the best token, its margin over the second (exponential with
a median of 0.69 nats, as measured on a small random Llama), and a geometric tail; the probabilities add up to one.
Decoding and teacher forcing get the same distribution from the same KV; only the noise (noise.py) differs.
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
"""The leading ranks, each of which has one token; all other tokens share the tail."""
_TAIL_LOGPROBS = [step * log(0.6) for step in range(CANDIDATES)]


def mix(x: int) -> int:
    """Hash a number to 64 bits (splitmix64's finalizer)."""
    x = (x + _GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * _A) & MASK
    x = ((x ^ (x >> 27)) * _B) & MASK
    return x ^ (x >> 31)


def hash_text(text: str) -> int:
    """Hash a string to 64 bits; unlike ``hash``, the result is the same in every process."""
    state = len(text)
    for byte in text.encode():
        state = mix(state ^ byte)
    return state


def gauss(key: int) -> float:
    """Draw a standard normal number; the same key always gives the same number."""
    return _NORMAL.inv_cdf(((mix(key) >> 12) + 0.5) / (1 << 52))


def uniform(key: int) -> float:
    """Draw a number in [0, 1); the same key always gives the same number."""
    return (mix(key) >> 11) / (1 << 53)


def token_kv(total: int, token: int, position: int) -> int:
    """Compute the KV of one token from the sum of the KV before it (rule 1)."""
    x = (total ^ (token * _TOKEN + position * _POSITION)) & MASK
    x = ((x ^ (x >> 32)) * _A) & MASK
    return ((x ^ (x >> 29)) * _B) & MASK


def extend(total: int, tokens: Sequence[int], position: int) -> tuple[list[int], int]:
    """Compute the KV of consecutive tokens, and the sum after the last of them."""
    rows = []
    for index, token in enumerate(tokens, position):
        row = token_kv(total, token, index)
        rows.append(row)
        total = (total + row) & MASK
    return rows, total


def correct_total(tokens: Sequence[int]) -> int:
    """Compute the sum of the KV of these tokens if no KV is damaged."""
    return extend(0, tokens, 0)[1]


@dataclass(frozen=True, slots=True)
class Language:
    """The tokens that the model can generate."""

    vocab_size: int
    first_word: int
    """The lowest word token. Tokens below it are special or bytes; of these, only ``eos`` is generated."""
    eos: int
    eos_rate: float = 0.0
    """Probability, 0 to 1, that the best token is ``eos``."""

    def distribution(self, total: int, drift: float = 0.0) -> "Distribution":
        """Return the distribution of the token after KV that sums to ``total``."""
        return Distribution(self, mix(total ^ _TOKEN), drift)

    def word(self, bits: int) -> int:
        """Map some bits to a word token."""
        return self.first_word + bits % (self.vocab_size - self.first_word)


class Distribution:
    """The probabilities of the next token, computed only as far as they are needed.

    ``drift`` is the effect of KV that is numerically wrong, such as KV scaled by 1 %: the standard deviation, in nats,
    of the error that it adds to each logit.
    """

    __slots__ = ("_best", "_drift", "_language", "_leading", "_more", "_rest", "_second", "_state", "_top", "margin")

    def __init__(self, language: Language, state: int, drift: float) -> None:
        self._language, self._state, self._drift = language, state, drift
        self.margin = -log1p(-((state & (_TWENTY_BITS - 1)) + 0.5) / _TWENTY_BITS)
        """Margin between the best and the second token, in nats, before drift."""
        ends = ((state >> 20) & 0xFFFF) < language.eos_rate * 0x10000
        self._best = language.eos if ends else language.word(state >> 36)
        self._more = mix(state)
        second = language.word(self._more >> 20)
        self._second = second if second != self._best else language.word(self._more + 1)
        self._rest = 0.2 + 1.8 * (self._more & (_TWENTY_BITS - 1)) / _TWENTY_BITS
        """Probability of all tokens after the second, as a multiple of the second's."""
        self._top = -log1p(exp(-self.margin) * (1.0 + self._rest))
        self._leading: list[tuple[int, float]] = []

    def best(self) -> tuple[int, int, float]:
        """Return the best token, the second token, and the margin between them in nats."""
        if not self._drift:
            return self._best, self._second, self.margin
        (first, high), (second, low) = self.ranking()[:2]
        return first, second, high - low

    def ranking(self, count: int = CANDIDATES) -> list[tuple[int, float]]:
        """Return the leading tokens with their log-probabilities, best first."""
        if count <= 2 and not self._drift:
            return [(self._best, self._top), (self._second, self._top - self.margin)][:count]
        self._leading = self._leading or (self._drifted() if self._drift else self._undrifted())
        return self._leading[:count]

    @property
    def level(self) -> float:
        """What a logit is above its log-probability: the logits' log-sum-exp, 8 to 24, as in small language models."""
        return 8.0 + 16.0 * uniform(self._state ^ _POSITION)

    def top_logprob(self) -> float:
        """Return the log-probability of the best token."""
        return self.ranking(1)[0][1]

    def look_up(self, token: int) -> tuple[float, int]:
        """Return a token's log-probability and its rank, counted from 1."""
        if token == self._best and not self._drift:
            return self._top, 1
        ranking = self.ranking()
        for rank, (candidate, logprob) in enumerate(ranking, 1):
            if candidate == token:
                return logprob, rank
        depth = uniform(self._state ^ (token * _POSITION & MASK))
        others = self._language.vocab_size - CANDIDATES
        return ranking[-1][1] - 0.5 - 4.0 * depth, CANDIDATES + 1 + int(depth * others)

    def _followers(self) -> list[tuple[int, float]]:
        """Return the tokens from the third rank on; they are a fixed stride apart, so that no two are the same."""
        first, words = self._language.first_word, self._language.vocab_size - self._language.first_word
        bits = mix(self._more)
        start, stride = bits & 0xFFFFFFFF, 1 + (bits >> 40) % (words // (CANDIDATES + 1))
        tokens = [first + (start + step * stride) % words for step in range(CANDIDATES)]
        tokens = [token for token in tokens if token not in (self._best, self._second)]
        third = self._top - self.margin + log(0.4 * self._rest)
        return [(token, third + _TAIL_LOGPROBS[step]) for step, token in enumerate(tokens[: CANDIDATES - 2])]

    def _undrifted(self) -> list[tuple[int, float]]:
        return [(self._best, self._top), (self._second, self._top - self.margin), *self._followers()]

    def _drifted(self) -> list[tuple[int, float]]:
        leading = self._undrifted()
        moved = [
            (token, logprob + self._drift * gauss(self._state ^ (token * _TOKEN & MASK))) for token, logprob in leading
        ]
        others = 1.0 - sum(exp(logprob) for _, logprob in leading)
        total = log(sum(exp(logprob) for _, logprob in moved) + others)
        return sorted(((token, logprob - total) for token, logprob in moved), key=lambda item: -item[1])
