"""The shapes of the chats that vLLM writes, for msgspec. What both endpoints have in common is in ``shapes``.

Only the text of a message is read, as by the other reader: its role, its reasoning and its tool calls are not compared,
and the tokens of which they are made stand in ``token_ids``.
"""

from typing import Any, Literal

import msgspec

from harness.load.answers.shapes import Absent, Natural, Number


class Message(msgspec.Struct, gc=False):
    """A message, or what a chunk adds to it."""

    content: str | None = None


class Top(msgspec.Struct, gc=False):
    """One alternative of a token, or the token itself."""

    token: str
    logprob: Number


class Row(msgspec.Struct, gc=False):
    """The log-probabilities of one token."""

    token: str
    logprob: Number
    top_logprobs: list[Top] | None = None


class ChatLogprobs(msgspec.Struct, gc=False):
    """Log-probabilities of the tokens of a chunk."""

    content: list[Row] | None


class ChatChoice(msgspec.Struct, gc=False, kw_only=True):
    """What a chunk holds of one choice."""

    # In vLLM's order, in which msgspec looks for them first.
    index: Natural = 0
    delta: Message
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[Natural] | None = None
    # The other places of a text.
    text: Absent = 0
    message: Absent = 0
    # A chat has them beside its choices.
    prompt_token_ids: None = None
    prompt_logprobs: None = None


class PlainChat(msgspec.Struct, gc=False, kw_only=True):
    """The choice of nearly all chunks between the first and the last one: the only one, with one token and its text."""

    index: Literal[0] = 0
    delta: Message
    logprobs: None = None
    finish_reason: None = None
    stop_reason: None = None
    token_ids: tuple[Natural]
    text: Absent = 0
    message: Absent = 0
    prompt_token_ids: None = None
    prompt_logprobs: None = None


class WholeChat(msgspec.Struct, gc=False, kw_only=True):
    """The choice of a whole answer."""

    index: Natural = 0
    message: Message
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[Natural] | None = None
    text: Absent = 0
    delta: None = None
    prompt_token_ids: None = None
    prompt_logprobs: list[Any] | None = None
