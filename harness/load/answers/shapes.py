"""The shapes of the completions that vLLM writes, for msgspec, and what both endpoints have in common.

Anything else is left to ``harness.load.answers.answer``. Fields that stand here with the type ``None`` are those of
which the other reader makes something; ``Absent`` is the type of those that may not even be null.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from harness.load.answers.logprobs import MOST_IDS

Natural = Annotated[int, msgspec.Meta(ge=0, lt=MOST_IDS)]
# An integer stays one until ``float``, which makes 0.0 of a -0 as the other reader does.
Number = int | float
# No number fits.
Absent = Annotated[int, msgspec.Meta(gt=0, lt=0)]
OneChoice = TypeVar("OneChoice")


class Details(msgspec.Struct, gc=False):
    """Where prompt tokens came from."""

    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Usage(msgspec.Struct, gc=False):
    """The server's own count of tokens."""

    prompt_tokens: Natural
    completion_tokens: Natural
    prompt_tokens_details: Details | None = None


class Chunk(msgspec.Struct, Generic[OneChoice], gc=False):
    """The payload of one event."""

    choices: list[OneChoice]
    usage: Usage | None = None
    error: None = None
    # Of a chat; completions have it in the choice.
    prompt_token_ids: list[Natural] | None = None
    prompt_logprobs: None = None


class Body(msgspec.Struct, Generic[OneChoice], gc=False):
    """A whole answer, which is not streamed."""

    choices: list[OneChoice]
    usage: Usage | None = None
    error: None = None
    prompt_token_ids: list[Natural] | None = None
    prompt_logprobs: list[Any] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Log-probabilities of the tokens of a chunk, in parallel lists."""

    token_logprobs: list[Number]
    tokens: list[str]
    top_logprobs: list[dict[str, Number] | None] | None = None
    # The rows of a chat.
    content: Absent = 0


class Choice(msgspec.Struct, gc=False, kw_only=True):
    """What a chunk holds of one choice."""

    # In vLLM's order, in which msgspec looks for them first.
    index: Natural = 0
    text: str | None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_token_ids: list[Natural] | None = None
    prompt_logprobs: None = None
    token_ids: list[Natural] | None = None


class Plain(msgspec.Struct, gc=False, kw_only=True):
    """The choice of nearly all chunks between the first and the last one: the only one, with one token and its text."""

    index: Literal[0] = 0
    text: str
    logprobs: None = None
    finish_reason: None = None
    stop_reason: None = None
    prompt_token_ids: None = None
    prompt_logprobs: None = None
    token_ids: tuple[Natural]


class WholeChoice(Choice, gc=False, kw_only=True):
    """The choice of a whole answer."""

    prompt_logprobs: list[Any] | None = None  # type: ignore[assignment] # a stream has none
