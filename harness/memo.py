"""A cache of one result, for pure functions of a history that several checkers call.

Histories are frozen and hold hundreds of thousands of entries, so arguments are compared by identity, not by content.
Only the last result is kept: all checkers judge one run before the next run is judged.
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, TypeVarTuple

A = TypeVarTuple("A")
R = TypeVar("R")


def once(function: Callable[[*A], R]) -> Callable[[*A], R]:
    """The function, which returns its last result again if it is called again with the same objects."""
    last: tuple[tuple[object, ...], R] | None = None

    @wraps(function)
    def remembered(*args: *A) -> R:
        nonlocal last
        if last is None or [*map(id, last[0])] != [*map(id, args)]:
            last = args, function(*args)
        return last[1]

    return remembered
