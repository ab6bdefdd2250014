"""An output compared with its teacher forcing, token by token.

Teacher forcing sends prompt and output, as token ids, with ``prompt_logprobs`` to a server, which reads no cache and no
connector for such a request. It returns the log-probability of each token and of the best token at its position. This
takes one prefill instead of a decode step per token. Errors do not cascade: each token is compared after the tokens
that were really served, so that a near tie that went the other way costs one token and not the rest of the answer.

For each served token, in nats:

regret        log-probability of the best token minus that of the served one, both as forced; 0 if the served token is
              the best. A greedy server with the right KV has regret only where two tokens are nearly equal.
drift         difference between its log-probabilities as served and as forced.
margin error  difference between its margins over the best other token, as served and as forced. A greedy server serves
              the token that leads, so that regret never exceeds the margin error. Every token has a margin error, and
              not only flipped tokens: it shows the noise of regrets even if no token of any control output flipped.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import Choice, History, Operation, Outcome, TokenLogprob
from harness.scenario import Purpose
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.noise import Floats

NO_IDS = "its answer has no token ids: does something between the harness and the servers drop return_token_ids?"


@dataclass(frozen=True, slots=True)
class Forced:
    """One output compared with its forcing: arrays of shape (tokens,), nats, NaN where a server reported nothing."""

    regret: Floats
    drift: Floats
    """Absolute."""
    margin_error: Floats
    """Absolute."""
    margin: Floats
    """Log-probability of the served token minus that of the best other one, as forced."""

    @property
    def tokens(self) -> int:
        """How many tokens were forced."""
        return len(self.regret)


ForcingResult = tuple[Forced, ...] | str
"""Each choice of an output compared with its forcing, or why that was not possible."""


def forcings(history: History) -> dict[str, list[Operation]]:
    """All teacher forcings in the order sent, by the id of the request whose output they force."""
    found: dict[str, list[Operation]] = {}
    for operation in asked_of(history):
        if operation.request.purpose is Purpose.FORCING:
            found.setdefault(str(operation.request.about), []).append(operation)
    return found


def compare_with_forcing(operation: Operation, candidates: Sequence[Operation]) -> ForcingResult:
    """Compare each choice of ``operation`` with its forcing, which is among ``candidates``."""
    prompt = operation.prompt_token_ids
    if prompt is None:
        return "how its prompt was tokenized is not known"
    if not operation.ended.choices or not all(choice.token_ids for choice in operation.ended.choices):
        return NO_IDS
    results = [_compare_choice(prompt, choice, candidates) for choice in operation.ended.choices]
    failure = next((result for result in results if isinstance(result, str)), None)
    return failure or tuple(result for result in results if isinstance(result, Forced))


def free_regret(operation: Operation, forced: Forced) -> Floats:
    """Regrets of the tokens that the sampler chose freely, 0 for the others; shape (tokens,), nats."""
    return forced.regret * (np.arange(forced.tokens) >= (operation.request.sampling.min_tokens or 0))


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """An output's tokens as forced under some prompt; arrays of shape (tokens,), nats."""

    logprob: Floats
    margin: Floats
    """Log-probability of the token minus that of the best other one; infinite if no other is known."""

    @classmethod
    def of(cls, rows: Sequence[TokenLogprob]) -> "ForcedTokens":
        """From the log-probabilities at each position."""
        logprob = np.array([one.logprob for one in rows])
        rival = np.array([-math.inf if one.runner_up is None else one.runner_up for one in rows])
        return cls(logprob, logprob - rival)

    @property
    def regret(self) -> Floats:
        """Log-probability of the best token minus that of the output's; 0 if the output's is the best."""
        return np.maximum(-self.margin, 0.0)

    def without(self, first: int) -> "ForcedTokens":
        """The tokens behind the first few."""
        return ForcedTokens(self.logprob[first:], self.margin[first:])


def forced_tokens(forcing: Operation, start: int) -> ForcedTokens | None:
    """The tokens from index ``start`` of the forced prompt on; None if the forcing failed or lacks some of them."""
    rows = [one for one in (forcing.ended.prompt_logprobs or ())[start:] if one is not None and is_finite(one)]
    if forcing.ended.outcome is not Outcome.OK or not rows or len(rows) < len(forcing.request.prompt) - start:
        return None
    return ForcedTokens.of(rows)


def compare_with_known(served: TokenLogprob, known: Mapping[int, float]) -> Forced | None:
    """One served token compared with known log-probabilities at its position; None if it is not among them.

    ``known``: at least two log-probabilities, nats, by token id; the best token is one of them.
    """
    own = known.get(served.token_id)
    if own is None:
        return None
    rival = max(logprob for token, logprob in known.items() if token != served.token_id)
    served_margin = served.logprob - _runner_up(served)
    return Forced(
        regret=np.array([max(rival - own, 0.0)]),
        drift=np.array([abs(served.logprob - own)]),
        margin_error=np.array([abs(served_margin - (own - rival))]),
        margin=np.array([own - rival]),
    )


def _compare_choice(prompt: tuple[int, ...], choice: Choice, candidates: Iterable[Operation]) -> Forced | str:
    rows = forced_rows(prompt, choice, candidates)
    return rows if isinstance(rows, str) else _compare_tokens(choice, rows)


def forced_rows(
    prompt: tuple[int, ...], choice: Choice, candidates: Iterable[Operation]
) -> Sequence[TokenLogprob] | str:
    """The log-probabilities of the choice's tokens as forced, one for each; or why they are not known.

    ``candidates``: teacher forcings, one of which may be that of this choice.
    """
    why = "it was not teacher-forced"
    for forcing in candidates:
        sent, ended = forcing.request.prompt, forcing.ended
        if not _forces(sent, prompt, choice.token_ids):
            continue
        rows = (ended.prompt_logprobs or ())[len(prompt) : len(sent)]
        if ended.outcome is not Outcome.OK:
            why = f"its teacher forcing did not complete: {ended.cause}"
        elif len(rows) < len(sent) - len(prompt) or not all(one and is_finite(one) for one in rows):
            why = "its teacher forcing did not report the log-probability of every token"
        else:
            return [one for one in rows if one is not None]
    return why


def _forces(sent: object, prompt: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether ``sent`` is the prompt and the output, which the context length may have truncated."""
    return isinstance(sent, tuple) and len(sent) > len(prompt) and (*prompt, *output)[: len(sent)] == sent


def is_finite(one: TokenLogprob) -> bool:
    """Whether its log-probabilities are finite numbers."""
    return math.isfinite(one.logprob) and (one.runner_up is None or math.isfinite(one.runner_up))


def _compare_tokens(choice: Choice, rows: Sequence[TokenLogprob]) -> Forced:
    padded = (*choice.logprobs, *[None] * len(rows))[: len(rows)]
    served = np.array([(math.nan, math.nan) if one is None else (one.logprob, _runner_up(one)) for one in padded])
    forced = np.array([(one.logprob, _runner_up(one)) for one in rows])
    served_margin, margin = served[:, 0] - served[:, 1], forced[:, 0] - forced[:, 1]
    return Forced(
        # A token without a runner-up is the best one.
        regret=np.maximum(-np.nan_to_num(margin, nan=0.0), 0.0),
        drift=np.abs(served[:, 0] - forced[:, 0]),
        margin_error=np.abs(served_margin - margin),
        margin=margin,
    )


def _runner_up(one: TokenLogprob) -> float:
    return math.nan if one.runner_up is None else one.runner_up
