"""Pure functions of a history that several checkers ask: computed once for each history.

Histories hold hundreds of thousands of entries and are frozen, so it is the object that is recognised, not its
contents. Only the last result is kept: a run is judged by all checkers before the next one is.
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, TypeVarTuple

A = TypeVarTuple("A")
R = TypeVar("R")


def once(function: Callable[[*A], R]) -> Callable[[*A], R]:
    """The same function; called again with the very same objects, it answers what it answered."""
    last: tuple[tuple[object, ...], R] | None = None

    @wraps(function)
    def remembered(*args: *A) -> R:
        nonlocal last
        if last is None or [*map(id, last[0])] != [*map(id, args)]:
            last = args, function(*args)
        return last[1]

    return remembered
