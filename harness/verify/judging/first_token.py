"""The first output token's log-probabilities, a vector that shows which KV an answer begins from. Pure.

A server reports the log-probabilities of the served token and of the most probable others, six at most. Two servers
that compute from the same KV report the same vector, but for noise; other KV gives other tokens or other numbers. So a
vector tells more than the token that was served, even where all prompts continue alike.

Distance. The standard deviation, over tokens, of the difference between the two log-probabilities, in nats. It
          ignores a common shift, which noise in the normalising sum has. A token that one vector lacks has at most the
          smallest log-probability there, so that the difference counts as far as it exceeds that. With fewer than three
          common tokens, the distance is infinite.
Noise.    The prefill server names the first token of each request from its own KV, and the decode server from the KV
          that was transferred. The distances of right outputs are the noise of the deployment. Two H100s with bfloat16
          (7,500 requests, five tokens): median 0.06, 98 of 100 below 0.10, all below 0.19. Equal to the last bit on a
          CPU in float32.
Chance.   The distance has two dimensions at least (three tokens less the common shift), so that the share of vectors
          within a small distance d falls as its square. If the nearest of all other vectors lies at distance r, about
          one of them lies within r, and (d / r)^2 within d.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from harness.deferred import kept_with
from harness.history import Ended, Named, Operation

Vector = Mapping[int, float]
"""Log-probabilities of a few tokens at one position, nats, by token id."""

MIN_COMMON = 3
"""Fewest tokens that two vectors must both have. Two numbers less their common shift are a single one."""
_LOWEST = -1000.0
"""vLLM writes minus infinity as -9999."""
MIN_RIGHT = 20
"""Fewest right outputs that show how large noise is."""
_QUANTILE, _MARGIN = 0.98, 2.0
"""The limit of noise is this multiple of this quantile: the largest of 7,500 clean distances was 1.9 times it. A larger
one costs a name and accuses nobody."""
RESOLUTION = 2e-4
"""Nats below which noise is not told apart: 1.5e-5 was measured in float32 where batches differ."""
FAR = 3.0
"""How many limits of noise every other vector must be away."""
FARTHEST = 2.0
"""Nats. No vector counts as farther than this, since the density near another vector is not that of the whole space."""


def served_vector(operation: Operation) -> Vector:
    """The first token as the request's last server reported it; empty if it did not."""
    if operation.ended.first_logprobs:
        return finite(operation.ended.first_logprobs)
    rows = operation.ended.choices[0].logprobs[:1] if operation.ended.choices else ()
    return finite(rows[0].named.items()) if rows and rows[0] is not None else {}


def prefill_vector(operation: Operation) -> Vector:
    """The first token as the prefill server reported it, from its own KV; empty if the proxy did not say."""
    return finite(operation.ended.prefill_first)


def distance(one: Vector, other: Vector) -> float:
    """How far two vectors are apart, nats; infinite if they have too few common tokens."""
    common = one.keys() & other.keys()
    if len(common) < MIN_COMMON:
        return math.inf
    least, other_least = min(one.values()), min(other.values())
    differences = [one[token] - other[token] for token in common]
    differences += [max(0.0, one[token] - other_least) for token in one.keys() - common]
    differences += [min(0.0, least - other[token]) for token in other.keys() - common]
    return deviation(differences)


class OwnFirst(Struct, frozen=True, gc=False):
    """An answer's first token beside the prefill server's own."""

    named: int
    """Tokens that both vectors name at least, numbers or not."""
    apart: float | None
    """Nats; None if one of the vectors has too few numbers."""
    equal: bool
    """Whether the vectors are equal to the last bit."""


def own_first(operation: Operation) -> OwnFirst:
    """The comparison of an operation's first token; it is kept, since the steps of verification ask again and again."""
    return kept_with(operation.ended, _own_first)


def _own_first(ended: Ended) -> OwnFirst:
    prefill, decode = ended.prefill_first, ended.first_logprobs
    one, other = finite(prefill), finite(decode)
    apart = distance(one, other) if min(len(one), len(other)) >= MIN_COMMON else None
    return OwnFirst(min(len(prefill), len(decode)), apart, _bits(prefill) == _bits(decode))


def _bits(named: Named) -> list[tuple[int, str]]:
    """Equal for vectors that are equal to the last bit, and where both servers name no number (NaN).

    The order does not matter: each server puts the token first that it chose.
    """
    return sorted((token, str(value + 0.0)) for token, value in named)


def own_distance(operation: Operation) -> float | None:
    """How far the first token is from the prefill server's own, nats; None if one of the vectors is too short."""
    return own_first(operation).apart


def vector_noise(right: Iterable[Operation]) -> float | None:
    """The limit of noise, nats; None if too few of the ``right`` outputs have both vectors."""
    distances = map(own_distance, right)
    known = [one for one in distances if one is not None and math.isfinite(one)]
    return limit_of_noise(known) if len(known) >= MIN_RIGHT else None


def limit_of_noise(clean: Sequence[float]) -> float:
    """The limit of noise by differences that are noise, in their unit; never below the resolution."""
    return max(RESOLUTION, _MARGIN * float(np.quantile(clean, _QUANTILE)))


def beyond_noise(served: Sequence[Operation]) -> list[Operation]:
    """The outputs whose first token is not the one that the prefill server named, the strangest first."""
    noise = vector_noise(served)
    apart = ((own_distance(one), one) for one in served) if noise is not None else ()
    far = [(away, one) for away, one in apart if away is not None and noise is not None and away > noise]
    return [one for _, one in sorted(far, key=lambda pair: -pair[0])]


def chance_of_vector(own: Vector, owner: Vector, others: Sequence[Vector], noise: float) -> float:
    """Probability that the nearest of all compared vectors fits ``own`` as well as the owner's; 1 if it does not fit.

    ``others``: those of all other prompts that were compared. ``noise``: the limit of :func:`vector_noise`.
    """
    fit = distance(own, owner)
    rest = min((distance(own, other) for other in others), default=0.0)
    if fit > noise or rest < FAR * noise:
        return 1.0
    return float((max(fit, noise / 2) / min(rest, FARTHEST)) ** (MIN_COMMON - 1))


def finite(named: Iterable[tuple[int, float]]) -> Vector:
    """The entries that are numbers, without those that stand for minus infinity."""
    return {token: value for token, value in named if math.isfinite(value) and value > _LOWEST}


_FEW = 8
"""numpy adds fewer numbers than this one after the other."""


def deviation(values: Sequence[float]) -> float:
    """The standard deviation; of a few numbers several times as quickly as numpy, and equal to the last bit."""
    if len(values) >= _FEW:
        return float(np.std(values))
    total = squares = 0.0
    for value in values:
        total += value
    mean = total / len(values)
    for value in values:
        squares += (value - mean) * (value - mean)
    return math.sqrt(squares / len(values))
