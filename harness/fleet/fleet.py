"""Sends the load of a run from several workers; everything else stays in the main process.

Each phase of the load is split (``split.py``). All workers begin their parts at the same time on the run's clock, to
which their own clocks are set before (``clocks.py``). They report each operation when it begins and when it ends; the
reports are recorded here in the order of their times (``operations.py``). So the history is like that of one client,
and is judged by the same checkers.

If a worker is lost, its operations in flight end as INFO, and it counts as a process of the harness that died: the run
is unknown, unless outputs are wrong. The other workers go on.
"""

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from harness.clock import Clock
from harness.errors import HarnessError
from harness.facts import Deployment
from harness.fleet.beside_faults import BesideFaults
from harness.fleet.clocks import Clocks
from harness.fleet.messages import Batch, Part, Setup
from harness.fleet.operations import Operations
from harness.fleet.remote import Remote, WorkerLost
from harness.fleet.split import split
from harness.history import DeadProcess
from harness.run import Sending
from harness.run.runner import PhaseRun, load_here
from harness.scenario import Phase

_HEAD_START_S = 0.05
"""From the order to begin to the beginning: until then, the order has reached all workers."""
_LAST_REPORTS_S = 10.0
"""Seconds that workers of an interrupted phase may take to report the operations that were in flight."""

_Step = Callable[[Remote], Awaitable[None]]


class Fleet:
    """The workers of a run."""

    def __init__(self, workers: Sequence[Remote], clock: Clock) -> None:
        self._workers = list(workers)
        self._clock = clock
        self._clocks = Clocks(clock)
        self._died: list[DeadProcess] = []

    def died(self) -> tuple[DeadProcess, ...]:
        """Workers that were lost while they had a part of a phase."""
        return tuple(self._died)

    async def set_up(self, deployment: Deployment, sending: Sending) -> None:
        """Tell the workers where to send. Raises HarnessError if one is lost."""
        setup = Setup(deployment, sending, time.monotonic() - self._clock.now())
        for worker in self._workers:
            try:
                await worker.call("set_up", setup)
            except WorkerLost as lost:
                raise HarnessError(f"{worker.name} {lost} before it sent anything. Run again.") from lost

    async def load(self, run: PhaseRun) -> None:
        """Send a phase's requests from the workers. Requests that verify others are sent from this process."""
        if not _of_load(run.phase):
            await load_here(run)
            return
        if not self._workers:
            raise HarnessError(f"No worker is left to send the load: {self._died[-1].text}.")
        parts = split(run.phase, len(self._workers))
        if len(parts) < len(self._workers):
            run.observer.note(_fewer(run.phase, len(parts), len(self._workers)))
        run.announce()
        await _Phase(run, dict(zip(self._workers, parts, strict=False)), self._clocks, self._lost).send()

    def _lost(self, worker: Remote, died: DeadProcess) -> None:
        self._workers.remove(worker)
        self._died.append(died)


class _Phase:
    """The sending of one phase from several workers."""

    def __init__(
        self,
        run: PhaseRun,
        parts: dict[Remote, Phase],
        clocks: Clocks,
        tell_lost: Callable[[Remote, DeadProcess], None],
    ) -> None:
        self._run = run
        self._parts = parts
        self._clocks = clocks
        self._tell_lost = tell_lost
        self._beside = BesideFaults(run, [*parts])
        self._operations = Operations(
            run, {worker.name: part for worker, part in parts.items()}, failed=self._beside.failed
        )

    async def send(self) -> None:
        """Send all parts, and wait until all of their operations are recorded."""
        await self._each(self._prepare)
        begin_at = self._run.clock.now() + _HEAD_START_S
        await self._to_the_end(begin_at)
        await self._each(self._record_clock)
        self._run.unsent = self._operations.unsent

    async def _each(self, step: _Step) -> None:
        for worker in [*self._parts]:
            await self._unless_lost(worker, step)

    async def _prepare(self, worker: Remote) -> None:
        part = self._parts[worker]
        run, requests = self._run, (*part.requests, *part.background)
        turns = (*run.conversations.before(requests), *run.references.before(requests))
        await worker.call("prepare", Part(run.scenario, part, turns, run.holds_back, self._beside.lasts))
        await self._clocks.set(worker)

    async def _record_clock(self, worker: Remote) -> None:
        self._run.record(await self._clocks.compared(worker))

    async def _to_the_end(self, begin_at: float) -> None:
        async def follow(worker: Remote) -> None:
            await self._follow(worker, begin_at)

        workers = [*self._parts]
        tasks = [asyncio.create_task(self._unless_lost(worker, follow)) for worker in workers]
        self._beside.begin()
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._beside.end()
            if not all(task.done() for task in tasks):
                await _interrupt(workers, tasks)
            self._operations.end_all()
        for task in tasks:
            task.result()

    async def _follow(self, worker: Remote, begin_at: float) -> None:
        """Have a worker send its part, and record what it reports."""
        await worker.call("begin", begin_at)
        batch = Batch((), 0.0)
        while not batch.last:
            batch = pickle.loads(await worker.call("fetch"))  # noqa: S301 - our own worker packed it
            self._operations.reported(worker.name, batch)
        if batch.trouble:
            raise HarnessError(f"{worker.name}, which sent a part of the load, failed: {batch.trouble}")

    async def _unless_lost(self, worker: Remote, step: _Step) -> None:
        """Take a step with a worker. If it is lost, its operations end, and it has no part any more."""
        try:
            await step(worker)
        except WorkerLost as lost:
            del self._parts[worker]
            self._tell_lost(worker, self._operations.lost(worker.name, str(lost)))


async def _interrupt(workers: Iterable[Remote], tasks: "list[asyncio.Task[None]]") -> None:
    """Have the workers end their parts, and wait for what they still report."""
    asking = [asyncio.ensure_future(worker.call("interrupt")) for worker in workers]
    every: list[asyncio.Future[None]] = [*tasks, *asking]
    await asyncio.wait(every, timeout=_LAST_REPORTS_S)
    for one in every:
        one.cancel()
    await asyncio.gather(*every, return_exceptions=True)


def _of_load(phase: Phase) -> bool:
    requests = (*phase.requests, *phase.background)
    return bool(requests) and all(request.of_load for request in requests)


def _fewer(phase: Phase, used: int, workers: int) -> str:
    return (
        f"{phase.name} is sent by {used} of {workers} workers: it has {len(phase.requests)} requests, of which at most "
        f"{phase.concurrency} are in flight"
    )
