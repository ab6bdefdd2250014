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
          is far for that reason alone, and in a loop many prompts give it nearly the same numbers. So the probability
          is at least the share of the run's tokens whose numbers are as near, and at least that of the same token
          after the same one, if other answers have it. It is doubled.

Measured in a run of 500 prompts that end in lists and loops (SmolLM2-135M in bfloat16 on an H100): of 5,203 pairs of
prompts with the same 16 tokens, 288 do not contradict each other, and 45 of these have equal first vectors, too, within
the noise. Nearly all of their tokens go on with a loop of the prompt, where numbers show nothing (ownership.py); for
one pair, the probability is 0.1. Of 3,072 pairs with the same first eight tokens of which some are informative, 496
agreed in all of these within d = 1. 729 were expected, but by the share of all tokens alone only 88.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from harness.history import Operation, TokenLogprob
from harness.verify.judging.chance_match import Tokens
from harness.verify.judging.first_token import FAR, FARTHEST, MIN_RIGHT, limit_of_noise
from harness.verify.judging.forcing import Forced, ForcedTokens, compare_with_forcing
from harness.verify.judging.noise import Floats

_CAUTION = 2.0
"""Probabilities are taken to be so many times as large as estimated."""


@dataclass(frozen=True, eq=False)
class LaterTokens:
    """What the outputs of a run that are not wrong tell of the log-probabilities of tokens."""

    limits: Floats
    """The limits of noise of a log-probability and of a margin, shape (2,), nats."""
    usual: "Usual | Sequence[Operation]"
    """The numbers of all tokens of the outputs that are not wrong; or these outputs."""

    @cached_property
    def _usual(self) -> "Usual":
        """The numbers of all tokens. Rarely needed, and many: collected from the outputs at first use."""
        return self.usual if isinstance(self.usual, Usual) else Usual.of(self.usual)

    @classmethod
    def of(cls, served: Sequence[Operation], forced: Mapping[str, Sequence[Operation]]) -> "LaterTokens | None":
        """From the outputs that are not wrong; None if too few were forced. ``forced``: all forcings, by request id."""
        clean = list(_compared(served, forced))
        if len(clean) < MIN_RIGHT:
            return None
        errors = (np.concatenate([one.drift for one in clean]), np.concatenate([one.margin_error for one in clean]))
        known = [every[np.isfinite(every)] for every in errors]
        if not all(map(len, known)):
            return None
        return cls(np.array([limit_of_noise(list(every)) for every in known]), served)

    def contradict(self, answer: Operation, under: ForcedTokens) -> bool:
        """Whether a token of the answer has another number than under the prompt, beyond noise."""
        return bool((self._apart(_served(answer), under) > 1.0).any())

    def chances(
        self, answer: Operation, under: ForcedTokens, others: Sequence[ForcedTokens], owner: str | None
    ) -> Floats:
        """For each token, how likely another prompt that serves it too gives it the same numbers; shape (tokens,).

        ``under``: the answer under the prompt of the candidate ``owner``. ``others``: the same under other prompts.
        """
        served, found = _served(answer), np.ones(len(under.logprob))
        # Both numbers must be known, and agree.
        fit = self._apart(served, under).max(axis=1)
        away = [self._apart(served, one).max(axis=1) for one in others]
        numbers, tokens = _numbers(served), answer.ended.choices[0].token_ids
        for index, apart in enumerate(map(float, fit)):
            rest = np.array([every[index] if index < len(every) else np.nan for every in away])
            if apart <= 1.0 and len(rest) and (rest >= FAR).all():
                within = max(apart, 0.5)
                share = self._usual.share(tokens[: index + 1], numbers[index], within * self.limits, owner)
                found[index] = self._chance(within, float(rest.min()), share)
        return found

    def _chance(self, within: float, nearest: float, share: float) -> float:
        """The probability at one position; distances in limits of noise."""
        return min(1.0, _CAUTION * max((within / min(nearest, FARTHEST / float(self.limits[0]))) ** 2, share))

    def _apart(self, one: ForcedTokens, other: ForcedTokens) -> Floats:
        """How far the numbers of the tokens that both have are apart; shape (tokens, 2), limits of noise.

        NaN where a number of one is not known.
        """
        both = min(len(one.logprob), len(other.logprob))
        return np.abs(_numbers(one)[:both] - _numbers(other)[:both]) / self.limits


@dataclass(frozen=True, slots=True)
class Usual:
    """The numbers of all tokens in a run's outputs that are not wrong."""

    logprobs: Floats
    """Of each token, shape (tokens,), nats; NaN where it is not known."""
    margins: Floats
    """The same over the best other token."""
    before: npt.NDArray[np.int64]
    """The token before each, -1 if it is the first, shape (tokens,)."""
    tokens: npt.NDArray[np.int64]
    outputs: Mapping[str, slice]
    """Which of them belong to an output, by request id."""

    @classmethod
    def of(cls, served: Sequence[Operation]) -> "Usual":
        """From the outputs that are not wrong."""
        # A run has millions of tokens: no Python object for each of them is kept.
        logprobs, margins, before, tokens = array("d"), array("d"), array("q"), array("q")
        outputs = dict[str, slice]()
        for one in served:
            ids = one.ended.choices[0].token_ids if one.ended.choices else ()
            numbers = _numbers(_served(one))[: len(ids)]
            start, ids = len(tokens), ids[: len(numbers)]
            outputs[one.request.request_id] = slice(start, start + len(ids))
            logprobs.extend(numbers[:, 0].tolist())
            margins.extend(numbers[:, 1].tolist())
            before.extend((-1, *ids)[: len(ids)])
            tokens.extend(ids)
        return cls(np.array(logprobs), np.array(margins), np.array(before), np.array(tokens), outputs)

    def share(self, tokens: Tokens, own: Floats, within: Floats, owner: str | None) -> float:
        """The share of tokens whose numbers are like the ``own`` ones of the last of ``tokens``.

        That of all tokens, or of the same token after the same one, if that is larger. ``within``: how far the two
        numbers may be apart, nats. ``owner``: the answer of this request does not count as another's.
        """
        like = (np.abs(self.logprobs - own[0]) <= within[0]) & (np.abs(self.margins - own[1]) <= within[1])
        # One is added to each count: a share of 0 would make any match certain.
        share = (int(like.sum()) + 1) / (len(like) + 1)
        same = (self.tokens == tokens[-1]) & (self.before == (tokens[-2] if len(tokens) > 1 else -1))
        same[self.outputs.get(str(owner), slice(0))] = False
        return max(share, int((like & same).sum()) / max(1, int(same.sum())))


def _compared(right: Sequence[Operation], forced: Mapping[str, Sequence[Operation]]) -> Iterator[Forced]:
    for one in right:
        # Most outputs have no forcing, and need not be read.
        if candidates := forced.get(one.request.request_id):
            found = compare_with_forcing(one, candidates)
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
