"""Readers by type annotation: each makes one type's value from parsed JSON, or says what is wrong with it.

The rules are those of ``codec.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from harness.history import Sample, TokenLogprob

ROWS: frozenset[type] = frozenset({TokenLogprob, Sample})
"""Classes written as arrays."""
_NON_FINITE = frozenset({"nan", "inf", "-inf"})


class MalformedError(ValueError):
    """JSON that does not have the expected form: it is damaged, or a later version wrote it."""


class Reader(NamedTuple):
    """How to read one type: whether a JSON value fits, and the conversion."""

    fits: Callable[[Any], bool]
    read: Callable[[Any], Any]


@cache
def reader_of(kind: Any) -> Reader:
    """The reader for a type annotation."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _union(tuple(reader_of(member) for member in get_args(kind)))
    if origin is tuple:
        return _tuple_of(get_args(kind))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(reader_of(get_args(kind)[1]))
    if kind in ROWS or is_dataclass(kind):
        return (_from_row if kind in ROWS else _from_object)(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum(kind)
    return _SCALARS[kind]


def _mapping(item: Reader) -> Reader:
    def read(content: Any) -> Any:
        return {name: item.read(value) for name, value in content.items()}

    return _checked(lambda content: type(content) is dict, read, "an object")


def _checked(fits: Callable[[Any], bool], read: Callable[[Any], Any], expected: str) -> Reader:
    def checked(content: Any) -> Any:
        if not fits(content):
            raise _unexpected(content, expected)
        return read(content)

    return Reader(fits, checked)


def _exactly(kind: type) -> Reader:
    def read(content: Any) -> Any:
        if type(content) is not kind:
            raise _unexpected(content, kind.__name__)
        return content

    return Reader(lambda content: type(content) is kind, read)


def _unexpected(content: Any, expected: str) -> MalformedError:
    return MalformedError(f"{_beginning(content)} where {expected} was expected")


def _beginning(content: Any) -> str:
    try:
        return repr(str(content)[:60])
    except ValueError:
        # Python refuses to format integers of several thousand digits.
        return f"a huge {type(content).__name__}"


def _is_float(content: Any) -> bool:
    return type(content) in (int, float) or (type(content) is str and content in _NON_FINITE)


def _float(content: Any) -> float:
    if not _is_float(content):
        raise _unexpected(content, "a number")
    try:
        number = float(content)
    except OverflowError:
        raise _unexpected(content, "a number of ordinary size") from None
    # A non-finite number is written as a string (rule 4).
    if type(content) is float and not math.isfinite(number):
        raise _unexpected(content, "a number of ordinary size")
    return number


_SCALARS: dict[Any, Reader] = {
    **{kind: _exactly(kind) for kind in (int, str, bool, NoneType)},
    float: Reader(_is_float, _float),
}


def _enum(kind: type[StrEnum]) -> Reader:
    members = {str(member): member for member in kind}
    return _checked(
        lambda content: type(content) is str and content in members, members.__getitem__, f"one of {', '.join(members)}"
    )


def _tuple(item: Reader) -> Reader:
    def fits(content: Any) -> bool:
        return type(content) is list and (not content or item.fits(content[0]))

    def read(content: Any) -> Any:
        if type(content) is not list:
            raise _unexpected(content, "an array")
        return tuple(map(item.read, content))

    return Reader(fits, read)


def _tuple_of(kinds: tuple[Any, ...]) -> Reader:
    if kinds[-1] is Ellipsis:
        return _tuple(reader_of(kinds[0]))
    return _fixed(tuple(reader_of(kind) for kind in kinds))


def _fixed(items: tuple[Reader, ...]) -> Reader:
    """The reader of a tuple of a fixed length, whose items have types of their own."""

    def read(content: Any) -> Any:
        return tuple(item.read(value) for item, value in zip(items, content, strict=True))

    return _checked(lambda content: type(content) is list and len(content) == len(items), read, f"{len(items)} values")


def _union(members: tuple[Reader, ...]) -> Reader:
    def read(content: Any) -> Any:
        for member in members:
            if member.fits(content):
                return member.read(content)
        raise MalformedError(f"{_beginning(content)} has none of the forms that are allowed here")

    return Reader(lambda content: any(member.fits(content) for member in members), read)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Reads a dataclass's fields by name."""

    kind: type
    readers: Mapping[str, Reader]

    @classmethod
    def of(cls, kind: type) -> "_Fields":
        return cls(kind, {name: reader_of(hint) for name, hint in get_type_hints(kind).items()})

    def make(self, content: Mapping[str, Any]) -> Any:
        if unknown := [name for name in content if name not in self.readers]:
            raise MalformedError(f"{self.kind.__name__} has no field {unknown[0]!r} in this version of the harness")
        try:
            return self.kind(**{name: self.readers[name].read(item) for name, item in content.items()})
        except TypeError as error:
            raise MalformedError(f"{self.kind.__name__} is incomplete: {error}") from None
        except MalformedError:
            raise
        except ValueError as error:
            raise MalformedError(f"{self.kind.__name__} has an impossible value: {error}") from None


def _from_object(kind: type) -> Reader:
    return _checked(lambda content: type(content) is dict, _Fields.of(kind).make, "an object")


def _from_row(kind: type) -> Reader:
    known = _Fields.of(kind)
    reads = tuple(reader.read for reader in known.readers.values())

    def read(content: list[Any]) -> Any:
        try:
            if len(content) <= len(reads):
                return kind(*[read(item) for read, item in zip(reads, content, strict=False)])
        except TypeError:
            pass
        raise MalformedError(f"{kind.__name__} has no {len(content)} fields in this version of the harness")

    return _checked(lambda content: type(content) is list, read, "an array")
