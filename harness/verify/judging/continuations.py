"""What a prompt is answered with, compared with a wrong output: as good as teacher forcing, and cheaper. Pure.

Teacher forcing reads no cache: it computes prompt and answer. But a server that has the prompt's blocks in its prefix
cache computes little more than the answer if it is asked to answer the prompt itself. A greedy server serves the best
token. So as long as its answer is the output's, each token of the output is the best one under this prompt, which is
what forcing would show. Where the two part, the server may still say how far behind the output's token is; what follows
is not known then, and only forcing can tell.

A cache, or the offload tier behind it, may have lost the prompt's KV and hold another's. So the owner's own prompt is
sent to the same cache for one token (the *cache check*), which the prefill server named during the load, too. A
continuation counts only if the log-probabilities of the two are equal within the noise.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from harness.history import Operation, Outcome, TokenLogprob
from harness.scenario import Purpose, Request
from harness.verify.judging.first_token import Vector, distance, prefill_vector
from harness.verify.judging.forcing import ForcedTokens, is_finite

Tokens = tuple[int, ...]


def is_continuation(request: Request) -> bool:
    """Whether an owner test asks for more than the first token under the prompt of a candidate."""
    return request.purpose is Purpose.OWNER_TEST and request.owner is not None and request.sampling.max_tokens > 1


def as_forced(answer: Tokens, continued: Operation) -> ForcedTokens | None:
    """The tokens of ``answer`` under the prompt of a continuation; None if the two part before the answer's end."""
    found = as_far_as_equal(answer, continued)
    return found if answer and len(found.logprob) == len(answer) else None


def as_far_as_equal(answer: Tokens, continued: Operation) -> ForcedTokens:
    """The same of the tokens before the two part."""
    return ForcedTokens.of(_equal(answer, continued))


def rules_out(answer: Tokens, continued: Operation, near: float) -> bool:
    """Whether a token of ``answer`` is more than ``near`` nats behind the best one under a continuation's prompt."""
    equal, every = len(_equal(answer, continued)), _rows(continued)
    if equal >= min(len(answer), len(every)):
        return False
    named = every[equal].named
    # A token that is not named is behind all that are.
    return max(named.values()) - named.get(answer[equal], min(named.values())) > near


def is_kept(owner: Operation, checks: Iterable[Vector], noise: float | None) -> bool:
    """Whether the prefill server's cache still gives the first token that it computed for ``owner`` during the load.

    ``checks``: what cache checks gave. ``noise``: the limit of noise of vectors, nats; None if it is not known.
    """
    during = prefill_vector(owner)
    return noise is not None and any(distance(during, found) <= noise for found in checks)


def _equal(answer: Tokens, continued: Operation) -> Sequence[TokenLogprob]:
    """The continuation's tokens up to the first that is not the answer's."""
    pairs = takewhile(lambda pair: pair[0] == pair[1].token_id, zip(answer, _rows(continued), strict=False))
    return [row for _, row in pairs]


def _rows(continued: Operation) -> Sequence[TokenLogprob]:
    """The continuation's tokens up to the first without known log-probabilities."""
    choices = continued.ended.choices if continued.outcome is Outcome.OK else ()
    rows = choices[0].logprobs if choices else ()
    return [row for row in takewhile(lambda row: row is not None and is_finite(row), rows) if row is not None]
