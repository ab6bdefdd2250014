"""Shrinks a failing load on a running deployment.

1. The whole load is run again. If it does not fail, nothing is shrunk.
2. The search (:mod:`harness.shrink.search`) tries smaller loads, each several times.
3. The result is confirmed by tries with the full verification of ``run --verify all``.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.errors import HarnessError
from harness.shrink.attempts import Attempts, Tried
from harness.shrink.candidate import Candidate
from harness.shrink.failing_load import FailingLoad, invalid
from harness.shrink.shrinker import Limits, Shrinker, tries_for

_FIRST = 5
"""Tries in which the whole load must fail again, unless the user gives another number."""
_FALLBACKS = 4
"""The most results that are confirmed if each does not fail again. (A fault may depend on earlier requests.)"""
_STEPS_BACK = (2, 4, 8, 1 << 30)
"""If the smallest candidate fails rarely, these larger ones are confirmed too, counted back from the smallest."""
_SILENT = 3
"""Tries in a row without an answer after which the deployment counts as gone."""
_BLOCK = 16
"""Tokens; vLLM's default, for servers that do not report their block size."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Limits of tries and time."""

    tries: int | None
    """The most tries of one candidate; None: derived from the failure rate of the whole load."""
    most: int
    """The most tries in all."""
    seconds: float
    """Time limit of the search."""
    confirm: int
    """Tries that confirm the result."""


@dataclass(slots=True)
class Shrinking:
    """One shrinking. Its results are kept here, also if it is cancelled."""

    effort: Effort
    attempts: Attempts
    runs: int = 0
    """Tries of the whole load."""
    shrinker: Shrinker | None = None
    found: dict[Candidate, Tried] = field(default_factory=dict)
    """The last failing try of each candidate that failed."""
    best: Tried | None = None
    confirmed: tuple[int, int] = (0, 0)
    """How often the best candidate failed, and in how many confirming tries."""
    stopped: str = ""
    """Why the search is incomplete."""
    broken: HarnessError | None = None
    """The failure of the harness or the deployment that ended the shrinking."""
    _silent: int = 0

    @property
    def case(self) -> FailingLoad:
        """The load, and the checks that must fail again."""
        return self.attempts.case

    async def run(self, seed: int) -> None:
        """All steps; ``seed``: the seed of the stored run. A cancellation ends them early and is not passed on."""
        try:
            if await self._fails_again(seed):
                await self._search()
        except asyncio.CancelledError:
            self._stop("shrinking was interrupted")
        except HarnessError as error:
            self.broken = error
            self._stop("the deployment failed during a try")

    def _stop(self, why: str) -> None:
        self.stopped = why
        if not self.confirmed[0] and self.shrinker is not None:
            self.best, self.confirmed = self.found.get(self.shrinker.best), (0, 0)

    def _note(self, text: str) -> None:
        self.attempts.observer.note(text)

    async def _fails_again(self, seed: int) -> bool:
        """Step 1. If only some of the checks fail again, the case is narrowed to these checks."""
        most, partly = self.effort.tries or _FIRST, None
        while self.runs < most:
            self.runs += 1
            tried = await self.attempts.whole(self.case.whole, seed if self.runs == 1 else None)
            if tried.failed:
                break
            if set(invalid(tried.judgement)) & set(self.case.checks):
                partly = tried
        else:
            if partly is None:
                return False
            tried = partly
            kept = tuple(name for name in self.case.checks if name in invalid(tried.judgement))
            self._note(f"of {', '.join(self.case.checks)} only {', '.join(kept)} failed again and must go on failing")
            self.attempts.case = replace(self.case, checks=kept)
        self.attempts.case = self.case.seen_again(tried.judgement)
        self.found[self.case.whole] = tried
        self.attempts.learn(tried)
        return True

    async def _search(self) -> None:
        """Steps 2 and 3."""
        tries = self.effort.tries or tries_for(self.runs)
        self._note(
            f"the whole load failed in run {self.runs}: each candidate is tried up to {tries} times, "
            f"{self.effort.most} tries in all"
        )
        clock, began = self.attempts.clock, self.attempts.clock.now()
        limits = Limits(tries, self.effort.most, lambda: clock.now() - began > self.effort.seconds)
        self.shrinker = Shrinker(self.case.whole, self._attempt, limits)
        sizes = [server.block_size for server in self.attempts.deployment.servers if server.block_size]
        prefixes = self.case.prefix_lengths(max(sizes, default=_BLOCK))
        await self.shrinker.run(self.case.hints(), prefixes)
        for _ in range(_FALLBACKS):
            if await self._confirm(self.shrinker.best) or not self.shrinker.disown():
                break
            self._note("the smallest candidate did not fail again: the search goes on from the previous one")
            await self.shrinker.run((), prefixes)
        if not self.shrinker.complete:
            self.stopped = "limits were reached (--max-tries, --time-budget-sec)"
        await self._step_back(self.shrinker.accepted)

    async def _step_back(self, accepted: list[Candidate]) -> None:
        """Find a larger candidate that fails at least every other time, if the smallest shows the fault too rarely."""
        for step in _STEPS_BACK:
            failed, runs = self.confirmed
            if 2 * failed >= runs or step // 2 >= len(accepted):
                return
            self._note(f"the result failed {failed} of {runs} times: a larger candidate may fail more often")
            await self._confirm(accepted[-min(step, len(accepted))])

    async def _attempt(self, candidate: Candidate) -> bool:
        tried = await self.attempts.quick(candidate)
        if tried.failed:
            self.found[candidate] = tried
        self._silent = 0 if tried.completed or "completion" in self.case.checks else self._silent + 1
        if self._silent >= _SILENT:
            raise HarnessError(f"{self._silent} tries in a row had no answer: the deployment seems to be gone.")
        return tried.failed

    async def _confirm(self, candidate: Candidate) -> bool:
        """Step 3: whether the candidate fails again. Keeps the candidate that fails most often."""
        last, failed, known = self.found[candidate], 0, self.confirmed[0] > 0
        for number in range(self.effort.confirm):
            tried = await self.attempts.whole(candidate, self.found[candidate].seed)
            if tried.failed:
                last, failed = tried, failed + 1
            if not known:
                self.best, self.confirmed = last, (failed, number + 1)
        if failed > self.confirmed[0]:
            self.best, self.confirmed = last, (failed, self.effort.confirm)
        return failed > 0

    def story(self) -> Iterator[str]:
        """How the result was found, for result.json and the user."""
        yield f"from {self.case.whole}, which failed again in run {self.runs}"
        if self.case.scheduled and self.best is not None:
            kept = self.best.candidate.timed
            yield (
                "requests keep their distances in time: as a closed loop, the load did not fail"
                if kept
                else "it fails as a closed loop too: the original times of sending are not needed, and not kept"
            )
        shrinker = self.shrinker
        if shrinker is not None:
            yield f"{shrinker.tries} tries, up to {self.effort.tries or tries_for(self.runs)} of each candidate"
            if (self.best.candidate if self.best else None) != shrinker.best:
                yield f"smaller candidates failed more rarely: {shrinker.best}"
            elif shrinker.complete:
                yield "no candidate one step smaller failed"
        if self.stopped:
            yield f"the search was not finished: {self.stopped}"
