"""Drives a search against something that fails now and then, and within limits.

A candidate is tried until it fails once, ``Limits.tries`` times at most; it is not asked about twice. When the limits
are reached, the best so far stands.
"""

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from harness.shrink.candidate import Candidate, Cutting
from harness.shrink.search import search

MISSED = 0.05
"""Chance of overlooking a candidate that fails half as often as the whole load."""
MOST_TRIES = 20
"""Of one candidate: a fault that is seen more rarely than this would take hours to shrink."""

Attempt = Callable[[Candidate], Awaitable[bool]]
"""Tries a candidate once; whether it failed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is tried."""

    tries: int
    """Of one candidate, at most."""
    most: int
    """In all, at most."""
    late: Callable[[], bool] = lambda: False
    """Whether time is up."""


def tries_for(runs: int) -> int:
    """How often a candidate is tried, where the whole load failed in the last of so many runs.

    Enough that one which fails half as often, by that measure, is overlooked with probability MISSED at most.
    """
    rate = 1 / (2 * max(runs, 1))
    return min(math.ceil(math.log(MISSED) / math.log(1 - rate)), MOST_TRIES)


class Shrinker:
    """One search. ``best`` is right at any time, also when ``run`` was cancelled."""

    def __init__(self, whole: Candidate, attempt: Attempt, limits: Limits) -> None:
        self.accepted = [whole]
        """Candidates that failed, each smaller than the one before."""
        self.tries = 0
        self.complete = False
        """Whether the search came to its end; then ``best`` is 1-minimal, as far as tries tell."""
        self._attempt, self._limits = attempt, limits
        self._known: dict[Candidate, bool] = {whole: True}

    @property
    def best(self) -> Candidate:
        """The smallest that failed."""
        return self.accepted[-1]

    async def run(self, hints: Iterable[Candidate], cutting: Cutting) -> Candidate:
        """Search from the best so far to the end, or to the limits."""
        self.complete = False
        asking = search(self.best, hints, cutting)
        try:
            candidate = next(asking)
            while True:
                candidate = asking.send(await self._fails(candidate))
        except StopIteration:
            self.complete = True
        except _LimitsReached:
            asking.close()
        return self.best

    def disown(self) -> bool:
        """The best does not fail, it turned out: the one before is the best again. False where there is none."""
        if len(self.accepted) == 1:
            return False
        self._known[self.accepted.pop()] = False
        return True

    async def _fails(self, candidate: Candidate) -> bool:
        if candidate not in self._known:
            self._known[candidate] = await self._try(candidate)
        return self._known[candidate]

    async def _try(self, candidate: Candidate) -> bool:
        for _ in range(self._limits.tries):
            if self.tries >= self._limits.most or self._limits.late():
                raise _LimitsReached
            self.tries += 1
            if await self._attempt(candidate):
                self.accepted.append(candidate)
                return True
        return False


class _LimitsReached(Exception):  # noqa: N818 - reads as what happened
    """No more may be tried."""
