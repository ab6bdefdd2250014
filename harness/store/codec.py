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
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from msgspec import Struct, structs

from harness.store.readers import ROWS, MalformedError, reader_of

T = TypeVar("T")


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
        decoded: T = reader_of(annotation).read(content)
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
