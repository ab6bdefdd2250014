"""Writes frozen dataclasses as strict JSON and reads them back, following their type annotations.

This is the careful road: it takes every value that an entry can have, and says what is wrong with one that cannot be
read. :mod:`harness.store.lines` is the fast one, for the entries of which a journal has many.

Rule 1: a field at its default is left out, so a later version may add fields with defaults.
Rule 2: a small dataclass that occurs thousands of times (``ROWS``) becomes an array of its fields in order, without
trailing defaults; any other dataclass becomes an object.
Rule 3: the member of a union is determined by the shape of the JSON: for a prompt, a string, an array of numbers, or an
array of objects. An empty array fits several members and means the same in each.
Rule 4: a number that JSON does not have is written as a string, ``"nan"``, ``"inf"`` or ``"-inf"``, and read back only
where a float is declared.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct, structs

from harness.history import Sample, TokenLogprob

ROWS: frozenset[type] = frozenset({TokenLogprob, Sample})
"""Classes written as arrays."""

T = TypeVar("T")

_NON_FINITE = frozenset({"nan", "inf", "-inf"})


class MalformedError(ValueError):
    """JSON that does not have the expected form: it is damaged, or a later version wrote it."""


def dumps(value: Any, tag: Mapping[str, str] | None = None) -> str:
    """One line of JSON for a dataclass; ``tag`` holds fields to put before its own."""
    content = {**(tag or {}), **_object(value)}
    try:
        return _strict(content)
    except ValueError:
        # There is a number that JSON does not have. This is rare, so such numbers are only looked for here.
        return _strict(_without_non_finite(content))


def decode(kind: type[T], content: object) -> T:
    """The dataclass that parsed JSON represents. Raises MalformedError."""
    annotation: Any = kind
    try:
        decoded: T = _reader(annotation).read(content)
    except RecursionError:
        raise MalformedError("it is nested too deeply") from None
    return decoded


def parse_json(content: bytes, *, stored: bool = False) -> object:
    """Parse strict JSON. Raises MalformedError, also for NaN and Infinity.

    ``stored``: the file may be damaged, so that integers of more than 64 bits are refused too.
    """
    # Searching for long numbers first saves a call for each token id of a history.
    parse_int = _bounded if stored and _MANY_DIGITS.search(content) else None
    try:
        return json.loads(content, parse_constant=_refuse, parse_int=parse_int)
    except ValueError as error:
        raise MalformedError(f"not JSON ({error})") from None
    except RecursionError:
        raise MalformedError("not JSON that can be read: it is nested too deeply") from None


_MANY_DIGITS = re.compile(rb"\d{19}")


def _bounded(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{digits[:30]} is an integer of more than 64 bits")
    return number


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _plain(value: Any) -> object:
    if type(value) in ROWS:
        return _row(value)
    return dict(value) if isinstance(value, Mapping) else _object(value)


_strict = json.JSONEncoder(default=_plain, separators=(",", ":"), allow_nan=False).encode


def _object(value: Any) -> dict[str, Any]:
    return {name: content for name, default in _defaults(value) if (content := getattr(value, name)) != default}


def _row(value: Any) -> list[Any]:
    content = [getattr(value, name) for name, _ in _defaults(value)]
    for _, default in reversed(_defaults(value)):
        if content[-1] != default:
            break
        content.pop()
    return content


def _defaults(value: Any) -> tuple[tuple[str, Any], ...]:
    kind: Any = type(value)
    return _defaults_of(kind)


@cache
def _defaults_of(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Each field with its default; a value that equals nothing else if it has none."""
    if issubclass(kind, Struct):
        return tuple((item.name, item.default) for item in structs.fields(kind))
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not a dataclass: the codec cannot write it")
    return tuple((item.name, _default(item)) for item in fields(kind))


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _without_non_finite(value: Any) -> Any:
    """The value with strings in place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, tuple | list):
        return [_without_non_finite(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _without_non_finite(item) for name, item in value.items()}
    return _without_non_finite(_plain(value))


class _Reader(NamedTuple):
    """How to read one type: whether a JSON value fits, and the conversion."""

    fits: Callable[[Any], bool]
    read: Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """The reader for a type annotation."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _union(tuple(_reader(member) for member in get_args(kind)))
    if origin is tuple:
        return _tuple_of(get_args(kind))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_reader(get_args(kind)[1]))
    if kind in ROWS or is_dataclass(kind):
        return (_from_row if kind in ROWS else _from_object)(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum(kind)
    return _SCALARS[kind]


def _mapping(item: _Reader) -> _Reader:
    def read(content: Any) -> Any:
        return {name: item.read(value) for name, value in content.items()}

    return _checked(lambda content: type(content) is dict, read, "an object")


def _checked(fits: Callable[[Any], bool], read: Callable[[Any], Any], expected: str) -> _Reader:
    def checked(content: Any) -> Any:
        if not fits(content):
            raise _unexpected(content, expected)
        return read(content)

    return _Reader(fits, checked)


def _exactly(kind: type) -> _Reader:
    def read(content: Any) -> Any:
        if type(content) is not kind:
            raise _unexpected(content, kind.__name__)
        return content

    return _Reader(lambda content: type(content) is kind, read)


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


_SCALARS: dict[Any, _Reader] = {
    **{kind: _exactly(kind) for kind in (int, str, bool, NoneType)},
    float: _Reader(_is_float, _float),
}


def _enum(kind: type[StrEnum]) -> _Reader:
    members = {str(member): member for member in kind}
    return _checked(
        lambda content: type(content) is str and content in members, members.__getitem__, f"one of {', '.join(members)}"
    )


def _tuple(item: _Reader) -> _Reader:
    def fits(content: Any) -> bool:
        return type(content) is list and (not content or item.fits(content[0]))

    def read(content: Any) -> Any:
        if type(content) is not list:
            raise _unexpected(content, "an array")
        return tuple(map(item.read, content))

    return _Reader(fits, read)


def _tuple_of(kinds: tuple[Any, ...]) -> _Reader:
    if kinds[-1] is Ellipsis:
        return _tuple(_reader(kinds[0]))
    return _fixed(tuple(_reader(kind) for kind in kinds))


def _fixed(items: tuple[_Reader, ...]) -> _Reader:
    """The reader of a tuple of a fixed length, whose items have types of their own."""

    def read(content: Any) -> Any:
        return tuple(item.read(value) for item, value in zip(items, content, strict=True))

    return _checked(lambda content: type(content) is list and len(content) == len(items), read, f"{len(items)} values")


def _union(members: tuple[_Reader, ...]) -> _Reader:
    def read(content: Any) -> Any:
        for member in members:
            if member.fits(content):
                return member.read(content)
        raise MalformedError(f"{_beginning(content)} has none of the forms that are allowed here")

    return _Reader(lambda content: any(member.fits(content) for member in members), read)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Reads a dataclass's fields by name."""

    kind: type
    readers: Mapping[str, _Reader]

    @classmethod
    def of(cls, kind: type) -> "_Fields":
        return cls(kind, {name: _reader(hint) for name, hint in get_type_hints(kind).items()})

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


def _from_object(kind: type) -> _Reader:
    return _checked(lambda content: type(content) is dict, _Fields.of(kind).make, "an object")


def _from_row(kind: type) -> _Reader:
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
