"""The load's part of a history, which stays the same while verification adds requests to the history. Pure.

What follows from the load alone is computed once for it, and not again for each step of verification: a step that takes
a millisecond for each of 10,000 requests would use up the time in which outputs are to be verified.
"""

from harness.history import History, Operation
from harness.memo import once

Load = tuple[Operation, ...]

_last: Load = ()


@once
def load_of(history: History) -> Load:
    """The load's operations in the order sent; the same object for histories that have the same ones."""
    global _last  # noqa: PLW0603 - a cache of one result, as harness.memo has
    load = tuple(operation for operation in history.operations() if operation.request.of_load)
    if not _same(load, _last):
        _last = load
    return _last


def _same(one: Load, other: Load) -> bool:
    """Whether both have the same entries; each history makes operations of its own from them."""
    if len(one) != len(other):
        return False
    return all(a.sent is b.sent and a.ended is b.ended for a, b in zip(one, other, strict=True))
