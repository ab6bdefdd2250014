"""One teacher-forced output against the noise floor.

    a token's regret above the far limit                               mismatch: a wrong token
    a token's drift or margin error above the far limit                mismatch: the KV was not the prompt's
    an average over the tokens above the far limit                     the same, too little to see in any one token
    a log-probability served as NaN                                    mismatch
    any of these above the near limit only                             doubtful: listed, and neither wrong nor unknown,
                                                                       unless so many are no noise (many.py)
    every token the best one                                           exact
    some tokens behind the best one, all within the noise              tie

Regret is judged where the sampler is free: below ``min_tokens`` a server may not serve the best token if that is the
end. At a temperature t each token of regret r or more is drawn with probability exp(-r/t) at most, so that the limit is
wider by t ln(tokens * vocabulary / ALPHA). Drift is judged always; without it, a drawn token that is not the best one
shows nothing.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.history import Choice, Operation
from harness.verify.judging.answer_shape import ill_formed
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.floor import ALPHA, NoiseFloor
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import Crossing, Limits, crossings
from harness.verify.judging.noise import Floats

_VOCABULARY = 1 << 18
# Tokens, of the largest vocabularies in use.


def judge_forced(operation: Operation, outputs: Sequence[Forced], floor: NoiseFloor | str) -> Compared:
    """All choices of one operation; the first that is wrong tells."""
    who = operation.request.request_id
    if misshapen := _misshapen(operation) or ill_formed(operation):
        return Compared(who, Match.MISMATCH, misshapen)
    if isinstance(floor, str):
        return _without_floor(operation, outputs, floor)
    for choice, forced in zip(operation.ended.choices, outputs, strict=True):
        for first, text in _faults(operation, choice, forced, floor):
            return Compared(who, Match.MISMATCH, text, first)
    return _within_noise(operation, outputs, _doubt(operation, outputs, floor))


def _within_noise(operation: Operation, outputs: Sequence[Forced], doubt: str) -> Compared:
    who = operation.request.request_id
    if _all_best(operation, outputs):
        return Compared(who, Match.EXACT, doubt=doubt)
    if operation.request.sampling.temperature > 0 and not all(np.isfinite(one.drift).all() for one in outputs):
        return Compared(who, Match.UNVERIFIED, "its tokens were drawn, and came without their log-probabilities")
    return Compared(who, Match.TIE, doubt=doubt)


def judged_regret(operation: Operation, forced: Forced) -> Floats:
    """Regrets of the tokens that a sampler chose freely; 0 for the others. Shape (tokens,), nats."""
    return forced.regret * (np.arange(forced.tokens) >= (operation.request.sampling.min_tokens or 0))


def _drawn_within(operation: Operation, forced: Forced) -> float:
    """Regret that a token may have by the draw alone, nats."""
    return operation.request.sampling.temperature * math.log(max(forced.tokens, 1) * _VOCABULARY / ALPHA)


def _faults(operation: Operation, choice: Choice, forced: Forced, floor: NoiseFloor) -> Iterator[tuple[int, str]]:
    """What is wrong with one choice: the first place, and words. The gravest first."""
    beyond = list(_beyond(operation, forced, floor.far))
    for one in beyond:
        if one.wrong:
            token = f"output token {one.first} is {choice.token_ids[one.first]}"
            yield one.first, f"{token}, {one.text}; {one.wrong} of {forced.tokens} tokens are wrong"
    yield from _not_numbers(choice)
    for one in beyond:
        yield one.first, f"its tokens may be right, but {one.text}: its KV was not the prompt's"


def _not_numbers(choice: Choice) -> Iterator[tuple[int, str]]:
    """The first log-probability that is none; no noise explains it."""
    for at in [i for i, one in enumerate(choice.logprobs) if one is not None and math.isnan(one.logprob)][:1]:
        yield at, f"the log-probability of output token {at} was served as NaN"


def _doubt(operation: Operation, outputs: Sequence[Forced], floor: NoiseFloor) -> str:
    """Which near limit is crossed, in words; empty if none is."""
    for forced in outputs:
        for one in _beyond(operation, forced, floor.near):
            return f"output token {one.first} is {one.text}" if one.wrong else one.text
    return ""


def _beyond(operation: Operation, forced: Forced, limits: Limits) -> Iterator[Crossing]:
    return crossings(forced, limits, judged_regret(operation, forced), _drawn_within(operation, forced))


def _without_floor(operation: Operation, outputs: Sequence[Forced], why: str) -> Compared:
    """Tokens that are all the best are right whatever the noise; of any other nothing can be said."""
    who = operation.request.request_id
    for at, text in (fault for choice in operation.ended.choices for fault in _not_numbers(choice)):
        return Compared(who, Match.MISMATCH, text, at)
    if _all_best(operation, outputs):
        return Compared(who, Match.EXACT)
    return Compared(
        who, Match.UNVERIFIED, f"some of its tokens are not the best ones, and how much is noise is not known: {why}"
    )


def _all_best(operation: Operation, outputs: Sequence[Forced]) -> bool:
    return all(not judged_regret(operation, forced).any() for forced in outputs)


def _misshapen(operation: Operation) -> str:
    """An answer that ended where it must not; what no log-probability shows."""
    sampling = operation.request.sampling
    for choice in operation.ended.choices:
        tokens, reason = len(choice.token_ids), choice.finish_reason
        if tokens > sampling.max_tokens:
            return f"it has {tokens} tokens, and {sampling.max_tokens} at most were asked"
        if reason == "stop" and sampling.ignore_eos and not sampling.stop:
            return f"it stopped after {tokens} tokens, and was asked to go on to {sampling.max_tokens}"
        if sampling.min_tokens and tokens < sampling.min_tokens:
            return f"it has {tokens} tokens, and {sampling.min_tokens} at least were asked"
    return ""
