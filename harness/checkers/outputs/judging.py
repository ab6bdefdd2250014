"""One teacher-forced output against the noise floor.

    a token's regret above the limit                                   mismatch: a wrong token
    a token's drift or margin error above the limit                    mismatch: the KV was not the prompt's
    the mean drift of several tokens above the limit                   the same, too little to see in any one token
    a log-probability served as NaN                                    mismatch
    every token the best one                                           exact
    some tokens behind the best one, all within the noise              tie

Regret is judged where the request is greedy and its sampler free: below ``min_tokens`` a server may not serve the best
token if that is the end. Drift is judged always.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.checkers.outputs.compared import Compared, Match
from harness.checkers.outputs.floor import NoiseFloor
from harness.checkers.outputs.forcing import Forced
from harness.checkers.outputs.noise import Floats
from harness.history import Choice, Operation


def judge_forced(operation: Operation, outputs: Sequence[Forced], floor: NoiseFloor | str) -> Compared:
    """All choices of one operation; the first that is wrong tells."""
    who = operation.request.request_id
    if misshapen := _misshapen(operation):
        return Compared(who, Match.MISMATCH, misshapen)
    if isinstance(floor, str):
        return _without_floor(operation, outputs, floor)
    for choice, forced in zip(operation.ended.choices, outputs, strict=True):
        for first, text in _faults(operation, choice, forced, floor):
            return Compared(who, Match.MISMATCH, text, first)
    return Compared(who, Match.EXACT if _all_best(operation, outputs) else Match.TIE)


def judged_regret(operation: Operation, forced: Forced) -> Floats:
    """Regrets of the tokens that a greedy sampler chose freely; 0 for the others. Shape (tokens,), nats."""
    sampling = operation.request.sampling
    free = np.arange(forced.tokens) >= (sampling.min_tokens or 0)
    return forced.regret * free if sampling.temperature == 0 else np.zeros(forced.tokens)


def _faults(operation: Operation, choice: Choice, forced: Forced, floor: NoiseFloor) -> Iterator[tuple[int, str]]:
    """What is wrong with one choice: the first place, and words. The gravest first."""
    regret = judged_regret(operation, forced)
    if len(over := np.flatnonzero(regret > floor.regret)):
        at = int(over[0])
        yield (
            at,
            (
                f"output token {at} is {choice.token_ids[at]}, {regret[at]:.3g} nats behind the best (noise ends at "
                f"{floor.regret:.2g}); {len(over)} of {forced.tokens} tokens are wrong"
            ),
        )
    if any(math.isnan(one.logprob) for one in choice.logprobs):
        at = next(i for i, one in enumerate(choice.logprobs) if math.isnan(one.logprob))
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
    greedy = operation.request.sampling.temperature == 0
    if greedy and _all_best(operation, outputs):
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
