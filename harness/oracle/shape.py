"""What the oracle needs to know of an operation: lengths, its first block, and whether there is a formula for it."""

from dataclasses import dataclass

from harness.history import Operation, Outcome
from harness.scenario import Prompt
from harness.verdict import Bounds


@dataclass(frozen=True, slots=True)
class Shape:
    """An operation as the caches see it."""

    prompt: tuple[int, ...]
    """Token ids."""
    output: tuple[int, ...]
    """Token ids of the first choice, as far as they are known."""
    generated: Bounds
    """Tokens generated; bounds where the operation did not end OK."""
    skips_caches: bool
    """vLLM reads no cache and no connector for a request that wants its prompt's log-probabilities."""
    salt: str | None

    @property
    def tokens(self) -> int:
        """Prompt tokens: T of the formulas."""
        return len(self.prompt)

    def first_block(self, block_size: int) -> tuple[str | None, tuple[int, ...]] | None:
        """What identifies its first whole block in a cache; None when prompt and output fill none.

        The last generated token has no KV: it was sampled and never fed back.
        """
        known = (self.prompt + self.output[:-1])[:block_size]
        return (self.salt, known) if len(known) == block_size else None


def shape_of(operation: Operation) -> Shape | None:
    """The operation's shape; None when the history does not tell how its prompt was tokenized."""
    request, ended = operation.request, operation.ended
    prompt = token_ids(request.prompt) or ended.prompt_token_ids
    if prompt is None:
        return None
    return Shape(
        prompt=prompt,
        output=ended.choices[0].token_ids if ended.choices else (),
        generated=_generated(operation),
        skips_caches=request.sampling.prompt_logprobs is not None,
        salt=request.cache_salt,
    )


def not_modelled(operation: Operation) -> str:
    """Why the oracle has no formula for such a request; empty when it has."""
    sampling, who = operation.request.sampling, operation.request.request_id
    if sampling.n not in (None, 1):
        return f"{who} asks for n={sampling.n} choices, each of which pulls the prompt: not modelled yet"
    if sampling.echo:
        return f"{who} asks for echo, which can bypass the caches: not modelled yet"
    return ""


def token_ids(prompt: Prompt) -> tuple[int, ...] | None:
    """The prompt, if it is token ids and not text or a conversation."""
    ids = tuple(token for token in prompt if isinstance(token, int))
    return ids if ids and len(ids) == len(prompt) else None


def _generated(operation: Operation) -> Bounds:
    ended = operation.ended
    if operation.outcome is not Outcome.OK:
        return Bounds(0, operation.request.sampling.max_tokens)
    if ended.usage is not None:
        return Bounds.exactly(ended.usage.completion_tokens)
    return Bounds.exactly(sum(len(choice.token_ids) for choice in ended.choices))
