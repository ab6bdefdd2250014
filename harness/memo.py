"""A cache of one result, for pure functions of a history that several checkers call.

Histories are frozen and hold hundreds of thousands of entries, so arguments are compared by identity, not by content;
tuples item by item. So what follows from a part of a history, given as a tuple, is computed again only if that part
has other items: verification adds requests to a history, and leaves the operations of its load as they are.
Only the last result is kept: all checkers judge one run before the next run is judged.
"""

from collections.abc import Callable
from functools import wraps
from operator import is_
from typing import TypeVar, TypeVarTuple

A = TypeVarTuple("A")
R = TypeVar("R")
_forgetting: list[Callable[[], None]] = []


def once(function: Callable[[*A], R]) -> Callable[[*A], R]:
    """The function, which returns its last result again if it is called again with the same objects."""
    last: tuple[tuple[object, ...], R] | None = None

    @wraps(function)
    def remembered(*args: *A) -> R:
        nonlocal last
        given: tuple[object, ...] = args
        if last is None or len(last[0]) != len(given) or not all(map(_same, last[0], given)):
            last = given, function(*args)
        elif not all(map(is_, last[0], given)):
            # Tuples with the same items: the next call with these tuples need not compare the items.
            last = given, last[1]
        return last[1]

    def forget_last() -> None:
        nonlocal last
        last = None

    _forgetting.append(forget_last)
    return remembered


def forget() -> None:
    """Forget the last results of all functions: those of a large run take memory that what comes next can use."""
    for one in _forgetting:
        one()


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    if not isinstance(one, tuple) or not isinstance(other, tuple) or len(one) != len(other):
        return False
    return all(map(is_, one, other))
