"""Where the answers of the two endpoints have their texts and log-probabilities, streamed and whole. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from harness.load.answers.chat_shapes import ChatChoice, ChatLogprobs, PlainChat, WholeChat
from harness.load.answers.columns import Rows
from harness.load.answers.shapes import Body, Choice, Chunk, Logprobs, Plain, WholeChoice

AnyChoice = Choice | ChatChoice | WholeChat
AnyPlain = Plain | PlainChat


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of answer is read. Each reader of JSON raises msgspec.MsgspecError for anything else."""

    texts: Callable[[Sequence[Any]], list[str]]
    """The text of each choice."""
    rows: Callable[[Sequence[Any], list[int]], Rows]
    """The rows of choices, which have so many tokens; ValueError if one has another number of rows."""


@dataclass(frozen=True, slots=True)
class StreamKind(Kind):
    """The kind of an answer that is streamed."""

    read_chunk: Callable[[bytes], Chunk[Any]]
    read_choice: Callable[[bytes], AnyChoice]
    read_plain: Callable[[bytes], AnyPlain]


@dataclass(frozen=True, slots=True)
class BodyKind(Kind):
    """The kind of a whole answer."""

    read_body: Callable[[bytes], Body[Any]]


def _texts_of_completion(choices: Sequence[Choice | Plain]) -> list[str]:
    return [choice.text or "" for choice in choices]


def _texts_of_chat(choices: Sequence[ChatChoice | PlainChat]) -> list[str]:
    return [choice.delta.content or "" for choice in choices]


def _texts_of_whole_chat(choices: Sequence[WholeChat]) -> list[str]:
    return [choice.message.content or "" for choice in choices]


_NO_ROWS = Logprobs([], [])
_NO_CHAT_ROWS = ChatLogprobs(None)


def _rows_of_completion(choices: Sequence[Choice | Plain], counts: list[int]) -> Rows:
    written = [choice.logprobs or _NO_ROWS for choice in choices]
    tokens, values = [one.tokens for one in written], [one.token_logprobs for one in written]
    of_all = [one.top_logprobs or [None] * len(one.tokens) for one in written]
    _check(counts, tokens, values, of_all)
    tops = [top or {} for top in chain.from_iterable(of_all)]
    return Rows(
        list(chain.from_iterable(tokens)),
        list(chain.from_iterable(values)),
        list(map(len, tops)),
        list(chain.from_iterable(tops)),
        list(chain.from_iterable(map(dict.values, tops))),
        may_repeat=False,
    )


def _rows_of_chat(choices: Sequence[ChatChoice | PlainChat | WholeChat], counts: list[int]) -> Rows:
    written = [(choice.logprobs or _NO_CHAT_ROWS).content or () for choice in choices]
    _check(counts, written)
    rows = list(chain.from_iterable(written))
    tops = [row.top_logprobs or () for row in rows]
    flat = list(chain.from_iterable(tops))
    return Rows(
        [row.token for row in rows],
        [row.logprob for row in rows],
        list(map(len, tops)),
        [top.token for top in flat],
        [top.logprob for top in flat],
        may_repeat=True,
    )


def _check(counts: list[int], *columns: Sequence[Sequence[object]]) -> None:
    if [True for column in columns if list(map(len, column)) != counts]:
        raise ValueError("not one row for each token")


def _reader(shape: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(shape).decode


_COMPLETION = StreamKind(
    _texts_of_completion, _rows_of_completion, _reader(Chunk[Choice]), _reader(Choice), _reader(Plain)
)
_CHAT = StreamKind(_texts_of_chat, _rows_of_chat, _reader(Chunk[ChatChoice]), _reader(ChatChoice), _reader(PlainChat))
_WHOLE_COMPLETION = BodyKind(_texts_of_completion, _rows_of_completion, _reader(Body[WholeChoice]))
_WHOLE_CHAT = BodyKind(_texts_of_whole_chat, _rows_of_chat, _reader(Body[WholeChat]))


def kind_of_stream(data: bytes, end: int) -> StreamKind:
    """The kind of a stream by the beginning of its data, up to ``end``. A mistake costs time, and nothing else."""
    return _CHAT if data.find(b'"delta"', 0, end) > 0 else _COMPLETION


def kind_of_body(data: bytes) -> BodyKind:
    """The kind of a whole answer. A mistake costs time, and nothing else."""
    return _WHOLE_CHAT if b'"message"' in data else _WHOLE_COMPLETION
