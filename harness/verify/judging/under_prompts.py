"""A wrong output under the prompts of other requests: by forcings, or by what such a prompt is answered with. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.history import Operation
from harness.scenario import Condition
from harness.verify.judging.chance_match import Tokens, probability_of_tokens
from harness.verify.judging.continuations import as_far_as_equal, as_forced, rules_out
from harness.verify.judging.forcing import ForcedTokens, forced_tokens
from harness.verify.judging.later_tokens import LaterTokens


@dataclass(frozen=True, slots=True)
class UnderPrompt:
    """A wrong output forced under one prompt."""

    owner: str | None
    """The request whose KV this prompt stands for; None if it is the output's own prompt."""
    prompt: Tokens
    tokens: ForcedTokens
    whole: bool = True
    """False if ``prompt`` is only the end of a prompt: such a decoy shows what fits by chance, and no owner."""

    def best_tokens(self, near: float) -> int:
        """How many tokens are the best ones under this prompt, within ``near`` nats."""
        return int((self.tokens.regret <= near).sum())

    def mean_probability(self, near: float) -> float:
        """The mean probability of the tokens under this prompt; that of the best one counts as 1."""
        return float(probability_of_tokens(self.tokens, near).mean())


def under_prompts(operation: Operation, candidates: Iterable[Operation]) -> Iterator[UnderPrompt]:
    """Every forcing of the operation's first choice, with the request whose prompt it has."""
    prompt, answer = operation.prompt_token_ids or (), answer_of(operation)
    for forcing in candidates:
        sent, owner = forcing.request.prompt, forcing.request.owner
        whole = forcing.request.condition is not Condition.PROMPT_END
        start = len(prompt) if whole else len(sent) - len(answer)
        if not prompt or not isinstance(sent, tuple) or start < 1 or sent[start:] != answer[: len(sent) - start]:
            continue
        own = sent[:start] == prompt if whole else owner in (operation.request.request_id, operation.request.about)
        if (own or owner is not None) and (tokens := forced_tokens(forcing, start)) is not None:
            ids = forcing.prompt_token_ids or ()
            yield UnderPrompt(None if own else owner, ids[:start], tokens, whole)


def continued(operation: Operation, continuation: Operation) -> Iterator[UnderPrompt]:
    """The operation's first choice under the prompt of a continuation; nothing if the two part."""
    tokens = as_forced(answer_of(operation), continuation)
    if tokens is not None:
        yield UnderPrompt(continuation.request.owner, continuation.prompt_token_ids or (), tokens)


def parts(operation: Operation, continuation: Operation, near: float, later: LaterTokens | None) -> bool:
    """Whether a continuation has another token than the output, or the same ones with other log-probabilities."""
    answer = answer_of(operation)
    equal = as_far_as_equal(answer, continuation)
    return rules_out(answer, continuation, near) or (later is not None and later.contradict(operation, equal))


def answer_of(operation: Operation) -> Tokens:
    """The tokens of the first choice."""
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()
