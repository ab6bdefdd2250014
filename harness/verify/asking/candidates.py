"""The requests that may own the KV of a wrong output, in the order in which they are tested. Pure.

Every request that was sent before the wrong answer ended may be the owner. Those whose prompts are as long as the wrong
output's come first: their tests find all blocks in a cache, and cost two tokens. Among these, the likeliest are those
whose own answer begins like the wrong output. Next come requests that were in flight together with it, the nearest in
time first, then earlier requests, the latest first.

A candidate with a shorter prompt than the wrong output can have provided whole blocks only, followed by tokens of the
wrong output's prompt. Its test computes these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.history import Operation
from harness.verify.asking.requests import Tokens

Candidate = tuple[Operation, Tokens]
"""A possible owner, and the prompt of ``owner_prompt``."""


def with_prompts(wrong: Operation, served: Sequence[Operation], block_size: int) -> Iterator[Candidate]:
    """Every different prompt once, that of the likeliest owner first."""
    seen: set[Tokens] = set()
    for owner in candidates(wrong, served):
        prompt = owner_prompt(owner, wrong, block_size)
        if prompt is not None and prompt not in seen:
            seen.add(prompt)
            yield owner, prompt


def candidates(wrong: Operation, served: Sequence[Operation]) -> list[Operation]:
    """Requests that may own the KV of a wrong output, the first to be tested first."""
    mine, until = wrong.prompt_token_ids, wrong.ended.at
    others = [o for o in served if o.sent.at <= until and o is not wrong and o.prompt_token_ids != mine]
    return sorted(others, key=_Unlikeliness.of(wrong))


def owner_prompt(owner: Operation, wrong: Operation, block_size: int) -> Tokens | None:
    """The prompt that the wrong output answers if it was made from the owner's KV; None if there is no such prompt."""
    mine, theirs = wrong.prompt_token_ids or (), owner.prompt_token_ids or ()
    # Decode computes the last token itself.
    taken = len(mine) - 1
    if len(theirs) < taken:
        taken = len(theirs) // block_size * block_size
    if taken < 1 or theirs[:taken] == mine[:taken]:
        return None
    return (*theirs[:taken], *mine[taken:])


def answer_of(operation: Operation) -> Tokens:
    """The tokens of the first choice."""
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()


@dataclass(frozen=True, slots=True)
class _Unlikeliness:
    """How unlikely a candidate is, beside others of the same wrong output."""

    answer: Tokens
    prompt: int
    at: float

    @classmethod
    def of(cls, wrong: Operation) -> "_Unlikeliness":
        return cls(answer_of(wrong)[:2], len(wrong.prompt_token_ids or ()), wrong.sent.at)

    def __call__(self, other: Operation) -> tuple[bool, bool, bool, float]:
        alike = len(self.answer) > 1 and answer_of(other)[:2] == self.answer
        together = other.ended.at >= self.at
        shorter = len(other.prompt_token_ids or ()) < self.prompt - 1
        return shorter, not alike, not together, abs(other.sent.at - self.at)
