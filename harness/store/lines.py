"""The lines of a journal that it has many of, ``sent`` and ``ended``, written and read by msgspec.

The form is that of :mod:`harness.store.codec`, which is several times slower and takes over wherever msgspec would
write or read something else: numbers that JSON does not have, text that is no Unicode, damaged lines and lines of
earlier versions. So a line means the same whichever of the two wrote it and whichever reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, lru_cache
from operator import attrgetter, itemgetter
from sys import intern
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import astuple

from harness.history import Choice, Ended, Ending, Sent, TokenLogprob, Usage
from harness.scenario import Message, Request, Sampling

_INTEGER = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Integers of more than 64 bits are refused in stored files."""

_encode = msgspec.json.Encoder().encode


# --- writing ---


def write_line(entry: Sent | Ended) -> bytes | None:
    """The entry's line without its newline; None if msgspec cannot write it."""
    content = {"kind": "ended" if isinstance(entry, Ended) else "sent", **_plain(entry)}
    try:
        line = _encode(content)
    except (TypeError, ValueError):
        return None
    # msgspec writes null for numbers that JSON does not have. The only null that entries have by themselves is that of
    # a prompt's first token; a text with the word in it takes the careful road for nothing.
    return line if line.count(b"null") == _first_is_none(content.get("prompt_logprobs")) else None


def _first_is_none(rows: list[Any] | None) -> bool:
    return bool(rows) and rows[0] is None  # type: ignore[index] # bool() narrows nothing


def _plain(value: Any) -> dict[str, Any]:
    """The dataclass's fields that are not at their default."""
    kind: Any = type(value)
    names, defaults, read = _columns(kind)
    return {
        name: _CONVERTED[name](content) if name in _CONVERTED else content
        for name, default, content in zip(names, defaults, read(value), strict=True)
        if content != default
    }


@cache
def _columns(kind: Any) -> tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], tuple[Any, ...]]]:
    every = fields(kind)
    defaults = tuple(i.default if i.default_factory is MISSING else i.default_factory() for i in every)
    names = tuple(item.name for item in every)
    return names, defaults, attrgetter(*names)


def _rows(rows: tuple[TokenLogprob | None, ...]) -> list[tuple[Any, ...] | None]:
    return [None if row is None else _row(row) for row in rows]


def _row(row: TokenLogprob) -> tuple[Any, ...]:
    content = astuple(row)
    if content[-1] is not None:
        return content
    length = 5
    while length > 2 and content[length - 1] is None:
        length -= 1
    return content[:length]


def _prompt(prompt: Any) -> Any:
    chat = type(prompt) is tuple and prompt and type(prompt[0]) is Message
    return [_plain(message) for message in prompt] if chat else prompt


_CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "request": _plain,
    "sampling": _plain,
    "usage": _plain,
    "prompt": _prompt,
    "choices": lambda choices: [_plain(choice) for choice in choices],
    "logprobs": lambda rows: _rows(rows) if type(rows) is tuple else rows,
    "prompt_logprobs": lambda rows: _rows(rows) if type(rows) is tuple else rows,
}
"""Fields that have other dataclasses in them. ``Sampling`` has two numbers of the same names."""


# --- reading ---


def read_line(line: bytes) -> Sent | Ended | None:
    """The entry of a line. None: it is of another kind, of an earlier version or damaged, or msgspec cannot read it."""
    try:
        if line.startswith(b'{"kind":"ended"'):
            return _ended(_mirrors(Ended).decode(line))
        if line.startswith(b'{"kind":"sent"'):
            return _sent(_mirrors(Sent).decode(line))
    except UNREADABLE:
        pass
    return None


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a line that it cannot read."""


def read_fields(line: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of a line's ``Ended``, or the prompt of its request. The rest of the line is skipped.

    For lines that were read as a whole before: unknown fields are not refused. Raises one of ``UNREADABLE``.
    """
    if names == ("prompt",):
        return {"prompt": _of_shared_numbers(_prompts().decode(line).request.prompt)}
    return dict(zip(names, astuple(_some_fields(names).decode(line)), strict=True))


def _of_shared_numbers(prompt: tuple[int, ...] | str) -> tuple[int, ...] | str:
    """The prompt, of numbers that all prompts share: whoever keeps prompts needs 8 bytes for each token, not 40."""
    if isinstance(prompt, str) or len(prompt) < 2 or min(prompt) < 0:
        return prompt
    try:
        shared: tuple[int, ...] = itemgetter(*prompt)(_numbers())
    except IndexError:
        return prompt
    return shared


_VOCABULARY = 1 << 18
"""More tokens than usual models have."""


@cache
def _numbers() -> Sequence[int]:
    return list(range(_VOCABULARY))


def chunks_fit(token_times: Sequence[float], tokens_per_chunk: Sequence[int]) -> bool:
    """Whether each chunk has a token, and all together have those that arrived. Earlier versions recorded no chunks."""
    return not tokens_per_chunk or (min(tokens_per_chunk) > 0 and sum(tokens_per_chunk) == len(token_times))


def _ended(mirror: Any) -> Ended | None:
    if mirror.ending is Ending.UNRECORDED or not chunks_fit(mirror.token_times, mirror.tokens_per_chunk):
        return None
    content: list[Any] = [*map(_shared, astuple(mirror))]
    content[_CHOICES] = tuple(Choice(*astuple(choice)) for choice in mirror.choices)
    content[_CHOICES + 1] = mirror.usage and Usage(*astuple(mirror.usage))
    return Ended(*content)


# The field after it is ``usage``.
_CHOICES = [item.name for item in fields(Ended)].index("choices")


def _sent(mirror: Any) -> Sent:
    at, request, *rest = astuple(mirror)
    request_id, prompt, sampling, *others = astuple(request)
    whole = Request(intern(request_id), prompt, _sampling(*astuple(sampling)), *map(_shared, others))
    return Sent(at, whole, *map(_shared, rest))


def _shared(content: Any) -> Any:
    """The content; of equal texts (ids, names of phases and servers) one is kept for all entries."""
    return intern(content) if type(content) is str else content


# Most requests of a run have the same parameters. 1 is not True here, nor 1.0.
_sampling = lru_cache(maxsize=1024, typed=True)(Sampling)


@cache
def _mirrors(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_mirror(kind))


@cache
def _some_fields(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    hints, defaults = get_type_hints(Ended), {item.name: item.default for item in fields(Ended)}
    return msgspec.json.Decoder(msgspec.defstruct("Ended", [(name, hints[name], defaults[name]) for name in names]))


@cache
def _prompts() -> msgspec.json.Decoder[Any]:
    request = msgspec.defstruct("Request", [("prompt", _PROMPT)])
    return msgspec.json.Decoder(msgspec.defstruct("Sent", [("request", request)]))


@cache
def _mirror(kind: Any) -> type[msgspec.Struct]:
    """A type with the dataclass's fields that refuses unknown ones, as msgspec does for its own types alone."""
    tag, hints = {Sent: "sent", Ended: "ended"}.get(kind), get_type_hints(kind)
    return msgspec.defstruct(
        kind.__name__,
        [_column(item.name, hints[item.name], item) for item in fields(kind)],
        tag=tag,
        tag_field=tag and "kind",
        forbid_unknown_fields=True,
        gc=False,
    )


def _column(name: str, hint: Any, item: Any) -> tuple[Any, ...]:
    known: Any = _PROMPT if name == "prompt" else _known(hint)
    if item.default_factory is not MISSING:
        return name, known, msgspec.field(default_factory=known)
    return (name, known) if item.default is MISSING else (name, known, item.default)


_PROMPT: Any = tuple[_INTEGER, ...] | str
"""Conversations are read by the codec: msgspec cannot tell one array from another by what is in it."""


def _known(hint: Any) -> Any:
    """The type as msgspec should read it."""
    if hint is int:
        return _INTEGER
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_known(member) for member in get_args(hint))]  # noqa: UP007 - the members are in a tuple
    if get_origin(hint) is tuple:
        return tuple[tuple(_known(member) for member in get_args(hint))]  # type: ignore[misc] # made at run time
    kind: Any = hint
    return _mirror(kind) if is_dataclass(hint) else hint
