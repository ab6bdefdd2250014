"""An output beside its teacher forcing: what a server that computed all of it itself thinks of every served token.

Teacher forcing feeds prompt and output, as token ids, to a server that reads no cache and no connector for it (a
request with ``prompt_logprobs``), and brings back the log-probability of each token and of the best one at its place.
One prefill instead of a decode step per token, and no cascade: each token is judged after the tokens that were really
served before it, so that a near tie that fell the other way costs one token and not the rest of the answer.

Of each served token, in nats:

regret        best token's log-probability minus its own, both as forced; 0 where it is the best. What a greedy server
              with the right KV serves has regret only where two tokens are as good as equal.
drift         its log-probability as served, beside as forced.
margin error  its lead over the best other token as served, beside as forced. Since a greedy server serves the token
              that leads, regret is never more than this; and it is seen at every token, not only where one flipped:
              the noise of regrets is known from it even where no control output flipped at all.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.history import Choice, History, Operation, Outcome, TokenLogprob
from harness.scenario import Purpose
from harness.verify.judging.noise import Floats

NO_IDS = "its answer carries no token ids: does something between here and the servers drop return_token_ids?"


@dataclass(frozen=True, slots=True)
class Forced:
    """One output's tokens; arrays of shape (tokens,), nats, NaN where the servers did not say."""

    regret: Floats
    drift: Floats
    """Absolute."""
    margin_error: Floats
    """Absolute."""
    margin: Floats
    """Lead of the served token over the best other, as forced; negative where it was not the best."""

    @property
    def tokens(self) -> int:
        """How many tokens were forced."""
        return len(self.regret)

    @property
    def mean_drift(self) -> float:
        """Over the tokens whose drift is known, nats; NaN if there is none."""
        known = self.drift[np.isfinite(self.drift)]
        return float(known.mean()) if len(known) else math.nan


def is_forcing(operation: Operation) -> bool:
    """Whether it is another request's teacher forcing."""
    return operation.request.purpose is Purpose.FORCING


def forcings(history: History) -> dict[str, list[Operation]]:
    """All teacher forcings, by the request that they are for, in the order sent."""
    found: dict[str, list[Operation]] = {}
    for operation in history.operations():
        if is_forcing(operation):
            found.setdefault(str(operation.request.about), []).append(operation)
    return found


def force(operation: Operation, asked: Sequence[Operation]) -> tuple[Forced, ...] | str:
    """Each choice of ``operation`` beside its forcing among ``asked``; or why that cannot be done."""
    prompt = operation.prompt_token_ids
    if prompt is None:
        return "how its prompt was tokenized is not known"
    if not operation.ended.choices or not all(choice.token_ids for choice in operation.ended.choices):
        return NO_IDS
    results = [_choice(prompt, choice, asked) for choice in operation.ended.choices]
    failure = next((result for result in results if isinstance(result, str)), None)
    return failure or tuple(result for result in results if isinstance(result, Forced))


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """Tokens as one forcing sees them, whatever prompt stands before them; arrays of shape (tokens,), nats."""

    logprob: Floats
    regret: Floats


def forced_tokens(forcing: Operation, start: int) -> ForcedTokens | None:
    """The tokens from ``start`` on; None where the forcing did not complete or did not tell of all of them."""
    told = [one for one in (forcing.ended.prompt_logprobs or ())[start:] if one is not None and is_finite(one)]
    if forcing.ended.outcome is not Outcome.OK or not told or len(told) < len(forcing.request.prompt) - start:
        return None
    logprob = np.array([one.logprob for one in told])
    rival = np.array([-math.inf if one.runner_up is None else one.runner_up for one in told])
    return ForcedTokens(logprob, np.maximum(rival - logprob, 0.0))


def beside_named(served: TokenLogprob, named: Mapping[int, float]) -> Forced | None:
    """One served token beside the tokens that are known to be the best at its place, by id; None where it is none.

    ``named`` holds two at least, the best one among them.
    """
    own = named.get(served.token_id)
    if own is None:
        return None
    rival = max(logprob for token, logprob in named.items() if token != served.token_id)
    lead = math.nan if served.runner_up is None else served.logprob - served.runner_up
    return Forced(
        regret=np.array([max(rival - own, 0.0)]),
        drift=np.array([abs(served.logprob - own)]),
        margin_error=np.array([abs(lead - (own - rival))]),
        margin=np.array([own - rival]),
    )


def _choice(prompt: tuple[int, ...], choice: Choice, asked: Iterable[Operation]) -> Forced | str:
    why = "it was not teacher-forced"
    for forcing in asked:
        sent, ended = forcing.request.prompt, forcing.ended
        if not _is_of(sent, prompt, choice.token_ids):
            continue
        told = (ended.prompt_logprobs or ())[len(prompt) : len(sent)]
        if ended.outcome is not Outcome.OK:
            why = f"its teacher forcing did not complete: {ended.cause}"
        elif len(told) < len(sent) - len(prompt) or not all(one and is_finite(one) for one in told):
            why = "its teacher forcing brought no log-probabilities for every token"
        else:
            return _beside(choice, [one for one in told if one is not None])
    return why


def _is_of(sent: object, prompt: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether ``sent`` is the prompt and the output, which a full context may have cut at its end."""
    return isinstance(sent, tuple) and len(sent) > len(prompt) and (*prompt, *output)[: len(sent)] == sent


def is_finite(one: TokenLogprob) -> bool:
    """Whether it says numbers."""
    return math.isfinite(one.logprob) and (one.runner_up is None or math.isfinite(one.runner_up))


def _beside(choice: Choice, told: Sequence[TokenLogprob]) -> Forced:
    served = np.array(list(_columns(choice, len(told)))).reshape(-1, 2)
    forced = np.array([(one.logprob, math.nan if one.runner_up is None else one.runner_up) for one in told])
    served_margin, margin = served[:, 0] - served[:, 1], forced[:, 0] - forced[:, 1]
    return Forced(
        # Only the best token may be named alone, where one alternative was asked for.
        regret=np.maximum(-np.nan_to_num(margin, nan=0.0), 0.0),
        drift=np.abs(served[:, 0] - forced[:, 0]),
        margin_error=np.abs(served_margin - margin),
        margin=margin,
    )


def _columns(choice: Choice, tokens: int) -> Iterator[tuple[float, float]]:
    """Log-probability and runner-up's of each token as served."""
    for index in range(tokens):
        one = choice.logprobs[index] if index < len(choice.logprobs) else None
        yield (
            math.nan if one is None else one.logprob,
            math.nan if one is None or one.runner_up is None else one.runner_up,
        )
