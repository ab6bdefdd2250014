"""One teacher-forced output compared with the noise floor.

    a token's regret above the far limit                           mismatch: a wrong token
    a token's drift or margin error above the far limit            mismatch: the KV was not that of the prompt
    the average error of the tokens above the far limit            mismatch, too small to show in any single token
    a log-probability served as NaN                                mismatch
    any of these above limits drawn from control outputs alone,    mismatch: so many are not noise, although each by
    if too many outputs are (many_doubtful.py)                     itself might be
    any of these above the near limit only                         doubtful: right, and listed in a note
    every token the best one                                       exact
    some tokens behind the best one, all within the noise          tie

Regret counts only where the sampler is free: below ``min_tokens`` a server may not serve the end token even if it is
the best. At temperature t, each token of regret r or more is sampled with probability exp(-r/t) at most, so that the
limit is wider by t ln(tokens * vocabulary / ALPHA). Drift always counts. Without served log-probabilities, a sampled
token that is not the best one shows nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import Choice, Operation
from harness.verify.judging.answer_shape import wrong_shape
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.forcing import Forced, free_regret
from harness.verify.judging.gross_mismatch import gross_mismatch
from harness.verify.judging.limits import ALPHA, Exceedance, Limits, exceedances
from harness.verify.judging.many_doubtful import Many

_VOCABULARY = 1 << 18
"""Tokens of the largest vocabularies in use."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of noise for one output."""

    near: Limits
    """Beyond these it is doubtful."""
    far: Limits
    """Beyond these it is wrong."""
    many: Many | None = None
    """Limits drawn from the control outputs alone, if more outputs exceed them than noise explains."""


def compare_forced(operation: Operation, outputs: Sequence[Forced], floor: Bounds | str) -> Compared:
    """Compare all choices of one operation, and report the first wrong one.

    ``outputs``: its choices compared with their forcing. ``floor``: the limits of noise, or why there are none.
    """
    who = operation.request.request_id
    if misshapen := wrong_shape(operation):
        return Compared(who, Match.MISMATCH, misshapen)
    if isinstance(floor, str):
        return _without_floor(operation, outputs)
    for choice, forced in zip(operation.ended.choices, outputs, strict=True):
        for first, text in _faults(operation, choice, forced, floor):
            return Compared(who, Match.MISMATCH, text, first, certain=gross_mismatch(operation, outputs) is not None)
    return _within_noise(operation, outputs, _doubt(operation, outputs, floor))


def _within_noise(operation: Operation, outputs: Sequence[Forced], doubt: str) -> Compared:
    who = operation.request.request_id
    if _all_best(operation, outputs):
        return Compared(who, Match.EXACT, doubt=doubt)
    if operation.request.sampling.temperature > 0 and not all(np.isfinite(one.drift).all() for one in outputs):
        return Compared(who, Match.UNVERIFIED, "its tokens were sampled, and served without their log-probabilities")
    return Compared(who, Match.TIE, doubt=doubt)


def _faults(operation: Operation, choice: Choice, forced: Forced, floor: Bounds) -> Iterator[tuple[int | None, str]]:
    """The faults of one choice, the gravest first: the first wrong token (None if not known) and a text."""
    exceeded = list(_exceeded(operation, forced, floor.far))
    for one in exceeded:
        if one.wrong and one.first is not None:
            token = f"output token {one.first} (id {choice.token_ids[one.first]})"
            yield one.first, f"{token} is {one.text}; {one.wrong} of {forced.tokens} tokens are wrong"
    yield from _nan_logprob(choice)
    for one in exceeded:
        yield one.first, f"its tokens may be right, but {one.text}: its KV is not that of its prompt"
    if floor.many is not None:
        for one in _exceeded(operation, forced, floor.many.limits):
            yield one.first, f"{one.text}; {floor.many.text}"


def _nan_logprob(choice: Choice) -> Iterator[tuple[int, str]]:
    """The first log-probability that was served as NaN, if any. Noise does not explain it."""
    for at in [i for i, one in enumerate(choice.logprobs) if one is not None and math.isnan(one.logprob)][:1]:
        yield at, f"the log-probability of output token {at} was served as NaN"


def _doubt(operation: Operation, outputs: Sequence[Forced], floor: Bounds) -> str:
    """The first near limit that is exceeded, in words; empty if none is."""
    for forced in outputs:
        for one in _exceeded(operation, forced, floor.near):
            return f"output token {one.first} is {one.text}" if one.wrong else one.text
    return ""


def _exceeded(operation: Operation, forced: Forced, limits: Limits) -> Iterator[Exceedance]:
    drawn = operation.request.sampling.temperature * math.log(max(forced.tokens, 1) * _VOCABULARY / ALPHA)
    return exceedances(forced, limits, free_regret(operation, forced), drawn)


def _without_floor(operation: Operation, outputs: Sequence[Forced]) -> Compared:
    """Tokens that are all the best ones are right at any noise. Other outputs are unverified."""
    who = operation.request.request_id
    for at, text in (fault for choice in operation.ended.choices for fault in _nan_logprob(choice)):
        return Compared(who, Match.MISMATCH, text, at)
    if _all_best(operation, outputs):
        return Compared(who, Match.EXACT)
    return Compared(who, Match.UNVERIFIED, "some of its tokens are not the best ones, and the noise limit is not known")


def _all_best(operation: Operation, outputs: Sequence[Forced]) -> bool:
    return all(not free_regret(operation, forced).any() for forced in outputs)
