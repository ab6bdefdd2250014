"""One teacher-forced output against the noise floor.

    a token's regret above the limit                                   mismatch: a wrong token
    a token's drift or margin error above the limit                    mismatch: the KV was not the prompt's
    the mean drift of several tokens above the limit                   the same, too little to see in any one token
    a log-probability served as NaN                                    mismatch
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

from harness.checkers.outputs.answer_shape import ill_formed
from harness.checkers.outputs.compared import Compared, Match
from harness.checkers.outputs.floor import ALPHA, NoiseFloor
from harness.checkers.outputs.forcing import Forced
from harness.checkers.outputs.noise import Floats
from harness.history import Choice, Operation

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
    if _all_best(operation, outputs):
        return Compared(who, Match.EXACT)
    if operation.request.sampling.temperature > 0 and not all(np.isfinite(one.drift).all() for one in outputs):
        return Compared(who, Match.UNVERIFIED, "its tokens were drawn, and came without their log-probabilities")
    return Compared(who, Match.TIE)


def judged_regret(operation: Operation, forced: Forced) -> Floats:
    """Regrets of the tokens that a sampler chose freely; 0 for the others. Shape (tokens,), nats."""
    return forced.regret * (np.arange(forced.tokens) >= (operation.request.sampling.min_tokens or 0))


def _drawn_within(operation: Operation, forced: Forced) -> float:
    """Regret that a token may have by the draw alone, nats."""
    return operation.request.sampling.temperature * math.log(max(forced.tokens, 1) * _VOCABULARY / ALPHA)


def _faults(operation: Operation, choice: Choice, forced: Forced, floor: NoiseFloor) -> Iterator[tuple[int, str]]:
    """What is wrong with one choice: the first place, and words. The gravest first."""
    regret, limit = judged_regret(operation, forced), floor.regret + _drawn_within(operation, forced)
    if len(over := np.flatnonzero(regret > limit)):
        at = int(over[0])
        yield (
            at,
            (
                f"output token {at} is {choice.token_ids[at]}, {regret[at]:.3g} nats behind the best (noise ends at "
                f"{limit:.2g}); {len(over)} of {forced.tokens} tokens are wrong"
            ),
        )
    for at in [i for i, one in enumerate(choice.logprobs) if one is not None and math.isnan(one.logprob)][:1]:
        yield at, f"the log-probability of output token {at} was served as NaN"
    yield from _drifts(forced, floor)


def _drifts(forced: Forced, floor: NoiseFloor) -> Iterator[tuple[int, str]]:
    tests = ((forced.drift, floor.drift, "log-probability"), (forced.margin_error, floor.regret, "lead over the next"))
    for values, limit, what in tests:
        if len(over := np.flatnonzero(values > limit)):
            worst = float(np.nanmax(values))
            text = f"its tokens may be right, but the {what} of {len(over)} of {forced.tokens} is off by up to"
            yield int(over[0]), f"{text} {worst:.3g} nats (noise ends at {limit:.2g}): its KV was not the prompt's"
    if floor.mean_drift is not None and forced.tokens > 1 and forced.mean_drift > floor.mean_drift:
        yield (
            0,
            (
                f"its tokens may be right, its log-probabilities are off by {forced.mean_drift:.3g} nats on average "
                f"(noise ends at {floor.mean_drift:.2g}): its KV was not the prompt's"
            ),
        )


def _without_floor(operation: Operation, outputs: Sequence[Forced], why: str) -> Compared:
    """Tokens that are all the best are right whatever the noise; of any other nothing can be said."""
    who = operation.request.request_id
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
