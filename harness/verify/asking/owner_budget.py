"""What the search for owners may cost. Pure.

All owner tests and forcings of a run together cost at most SHARE of the load's engine tokens, or LEAST if that is more,
and no more than the ledger has left (ledger.py).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.history import Operation
from harness.scenario import Request
from harness.verify.asking.outputs import tokens_of

SHARE = 0.1
"""Share of the load's engine tokens (prompts and answers) that the search may cost."""
LEAST = 1 << 15
"""Engine tokens that the search may cost in any case."""
_CONFIRMATION = 256
"""Engine tokens of what shows that a candidate is the owner: a continuation of 16 tokens, four decoys, and rivals."""


def payable(
    tested: Sequence[Sequence[Request]], left: float, price: Callable[[Request], int], cheap: int
) -> Iterator[Request]:
    """The owner tests of as many wrong outputs as can be searched to the end, the cheapest first.

    ``tested``: the next tests of each output. ``left``: engine tokens. ``price``: engine tokens of a request. Tests
    that cost more than ``cheap`` tokens, of short prompts or lost ones, wait until there are no others.
    """
    rows = [tests for tests in tested if tests]
    if not math.isinf(left):
        rows = [tests for tests in rows if max(map(price, tests)) <= cheap] or rows
    for tests in sorted(rows, key=lambda tests: sum(map(price, tests))):
        left -= _CONFIRMATION
        for test in tests:
            left -= price(test)
            if left < 0:
                return
            yield test


def affordable(wanted: Iterable[Request], budget: int, price: Callable[[Request], int]) -> Iterator[Request]:
    """The requests in their order, as long as the budget of engine tokens suffices."""
    for request in wanted:
        budget -= price(request)
        if budget < 0:
            return
        yield request


def budget_of(served: Sequence[Operation]) -> int:
    """Engine tokens that the search may cost."""
    return max(LEAST, int(SHARE * sum(map(tokens_of, served))))
