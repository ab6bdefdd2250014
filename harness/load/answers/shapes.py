"""The shapes of the chunks that vLLM streams, for msgspec. Anything else is left to ``harness.load.answers.answer``.

Fields that stand here with the type ``None`` are those of which the other reader makes something.
"""

from typing import Annotated

import msgspec

from harness.load.answers.logprobs import MOST_IDS

Natural = Annotated[int, msgspec.Meta(ge=0, lt=MOST_IDS)]
# An integer stays one until ``float``, which makes 0.0 of a -0 as the other reader does.
Number = int | float


class Details(msgspec.Struct, gc=False):
    """Where prompt tokens came from."""

    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Usage(msgspec.Struct, gc=False):
    """The server's own count of tokens."""

    prompt_tokens: Natural
    completion_tokens: Natural
    prompt_tokens_details: Details | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Log-probabilities of the tokens of a chunk, in parallel lists."""

    token_logprobs: list[Number]
    tokens: list[str]
    top_logprobs: list[dict[str, Number] | None] | None = None
    # The rows of a chat; no number fits, so that the chunk is left to the other reader.
    content: Annotated[int, msgspec.Meta(gt=0, lt=0)] = 0


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


class Chunk(msgspec.Struct, gc=False):
    """The payload of one event."""

    choices: list[Choice]
    usage: Usage | None = None
    error: None = None
    # Chat has these here.
    prompt_token_ids: None = None
    prompt_logprobs: None = None
