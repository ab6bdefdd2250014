"""Runs a search on candidates that fail only sometimes, within limits.

A candidate is tried until it fails once, at most ``Limits.tries`` times. When a limit is reached, the best candidate so
far is the result.
"""

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from harness.shrink.candidate import Candidate, PrefixLengths
from harness.shrink.search import search

MISSED = 0.05
"""Probability of missing a candidate that fails half as often as the whole load."""
MOST_TRIES = 20
"""The most tries of one candidate. With more, for a rarer fault, shrinking would take hours."""

Attempt = Callable[[Candidate], Awaitable[bool]]
"""Tries a candidate once, and returns whether it failed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a search."""

    tries: int
    """The most tries of one candidate."""
    most: int
    """The most tries in total."""
    late: Callable[[], bool] = lambda: False
    """Whether the time limit has passed."""


def tries_for(runs: int) -> int:
    """How often to try a candidate, if only the last of ``runs`` runs of the whole load failed.

    A candidate that fails half as often as the whole load is missed with a probability of at most MISSED.
    """
    rate = 1 / (2 * max(runs, 1))
    return min(math.ceil(math.log(MISSED) / math.log(1 - rate)), MOST_TRIES)


class Shrinker:
    """One search. ``best`` is valid at any time, also after ``run`` was cancelled."""

    def __init__(self, whole: Candidate, attempt: Attempt, limits: Limits) -> None:
        self.accepted = [whole]
        """Candidates that failed, each smaller than the one before."""
        self.tries = 0
        self.complete = False
        """Whether the search is complete. If no try missed a failure, ``best`` is then 1-minimal."""
        self._attempt, self._limits = attempt, limits
        self._known: dict[Candidate, bool] = {whole: True}

    @property
    def best(self) -> Candidate:
        """The smallest candidate that failed."""
        return self.accepted[-1]

    async def run(self, hints: Iterable[Candidate], prefixes: PrefixLengths) -> Candidate:
        """Search from the best candidate so far, until the end or a limit."""
        self.complete = False
        asking = search(self.best, hints, prefixes)
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
        """Replace the best candidate, which did not fail again, by the previous best; False if there is none."""
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
    """A limit was reached."""
