"""The two parts of a history's operations: the load, and what was sent to verify it. Pure.

The load stays as it is while verification adds requests to the history. What follows from it alone is computed once
(:mod:`harness.memo`), and not again for each step of verification: a step that takes a millisecond for each of 10,000
requests would use up the time in which outputs are to be verified.
"""

from harness.history import History, Operation
from harness.memo import once

Load = tuple[Operation, ...]


@once
def load_of(history: History) -> Load:
    """The load's operations in the order sent."""
    return tuple(operation for operation in history.operations() if operation.request.of_load)


@once
def asked_of(history: History) -> tuple[Operation, ...]:
    """All other operations in the order sent: few, beside a large load."""
    return tuple(operation for operation in history.operations() if not operation.request.of_load)
