"""What faults of a run decide while workers send: when a client goes on after a failure, and how long the load lasts.

A worker knows nothing of faults. A client whose request did not complete waits there for a permit; here, one waits in
its place, as a client of this process would, and then sends the permit. A load that lasts longer than its time, because
faults are not over, does so in all workers, until they are told that time counts.
"""

import asyncio
import contextlib
from collections.abc import Collection, Coroutine
from typing import Any

from harness.fleet.remote import Remote, WorkerLost
from harness.run.runner import PhaseRun

_POLL_S = 0.1


class BesideFaults:
    """Tells the workers that send one phase."""

    def __init__(self, run: PhaseRun, workers: Collection[Remote]) -> None:
        self._run = run
        self._workers = {one.name: one for one in workers}
        self._tasks: set[asyncio.Task[None]] = set()
        self.lasts = run.goes_on()
        """Whether the load goes on when its time is over."""

    def begin(self) -> None:
        """Tell the workers when time counts. Called when all of them have begun, or are about to."""
        if self.lasts:
            self._start(self._until_time_counts())

    def failed(self, worker: str) -> None:
        """A request of this worker did not complete."""
        if self._run.holds_back and worker in self._workers:
            self._start(self._permit(self._workers[worker]))

    async def end(self) -> None:
        """Tell nobody anything any more."""
        self._workers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _permit(self, worker: Remote) -> None:
        await self._run.after_failure()
        await _tell(worker, "go_on")

    async def _until_time_counts(self) -> None:
        while self._run.goes_on():
            await self._run.clock.sleep(_POLL_S)
        for worker in [*self._workers.values()]:
            await _tell(worker, "time_counts")


async def _tell(worker: Remote, what: str) -> None:
    # Whoever follows the worker learns that it is lost.
    with contextlib.suppress(WorkerLost):
        await worker.call(what)
