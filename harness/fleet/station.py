"""A worker's own side: it sends its part of each phase, stamps what happens, and reports it when asked.

The main process asks by calling methods, through a socket or through Ray. ``fetch`` waits until there is something to
report, so that one call follows the other for as long as a part runs.
"""

import asyncio
import pickle
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from itertools import chain
from typing import Protocol

from harness.clock import Clock
from harness.fleet.messages import Batch, Part, Report, Setup, pack
from harness.fleet.reach import require_reachable
from harness.history import ClientHealth, Ended, Entry, Sent
from harness.load.client import Client
from harness.load.health import LoopLag
from harness.observer import SILENT
from harness.run.arrivals import arrivals_of
from harness.run.conversations import Conversations
from harness.run.references import References
from harness.run.runner import PhaseRun, Sender
from harness.run.started import installed_version
from harness.run.transport import client_of, routes
from harness.scenario import Request

_GATHER_S = 0.02
"""Reports of so many seconds go together. What a worker had not reported when it was killed is lost."""
_QUIET_S = 0.1
"""After so many seconds without anything to report, an empty batch says so: other workers' reports wait for it."""


class WorkerClock:
    """The run's clock in a worker: its machine's monotonic clock, counted from ``zero`` and corrected."""

    def __init__(self, zero: float, read: Callable[[], float] = time.monotonic) -> None:
        self._zero = zero
        self._read = read

    def now(self) -> float:
        """Seconds since the run began."""
        return self._read() - self._zero

    async def sleep(self, seconds: float) -> None:
        """Wait with asyncio."""
        await asyncio.sleep(seconds)

    def correct(self, seconds: float) -> None:
        """Put the clock forward. Not while a part runs, since time would jump."""
        self._zero -= seconds


class Sending(Protocol):
    """What sends requests: the client."""

    async def send(self, request: Request) -> Ended:
        """Send a request and return how it ended."""
        ...


Connecting = Callable[[Setup, Clock], AbstractAsyncContextManager[Sending]]


def _over_http(setup: Setup, clock: Clock) -> Client:
    return client_of(setup.deployment, setup.sending, clock)


class Station:
    """Sends what it is told to, and reports. Every method is called by the main process."""

    def __init__(self, connect: Connecting = _over_http, read: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._read = read
        self._open = AsyncExitStack()
        self._clock: WorkerClock
        self._send: Sender
        self._part: Part
        self._permits: asyncio.Semaphore
        self._lasts = False
        self._known: dict[str, Request] = {}
        self._reports: list[Report] = []
        self._sent: list[Sent] = []
        self._task: asyncio.Task[ClientHealth] | None = None
        self._news = asyncio.Event()

    async def hello(self) -> str:
        """The version of the harness that this worker has."""
        return installed_version()

    async def set_up(self, setup: Setup) -> None:
        """Make the clock and the client. Raises UsageError if a server cannot be reached from here."""
        await require_reachable(chain(*routes(setup.deployment, setup.sending.reference_url).values()))
        self._clock = WorkerClock(setup.zero, self._read)
        client = await self._open.enter_async_context(self._connect(setup, self._clock))
        self._send = client.send

    async def time(self) -> tuple[float, float]:
        """When the question arrived and when it is answered, on this worker's clock."""
        now = self._clock.now()
        return now, now

    async def correct(self, seconds: float) -> None:
        """Put this worker's clock forward."""
        self._clock.correct(seconds)

    async def prepare(self, part: Part) -> None:
        """Receive a part; nothing is sent yet."""
        self._part = part
        self._known = {one.request_id: one for one in (*part.phase.requests, *part.phase.background)}
        self._reports, self._sent = [], []
        self._permits = asyncio.Semaphore(0)
        self._lasts = part.lasts

    async def go_on(self) -> None:
        """Let one of the clients go on that are held back because their requests failed."""
        self._permits.release()

    async def time_counts(self) -> None:
        """Let the part end when the phase's time is over."""
        self._lasts = False

    async def begin(self, at: float) -> None:
        """Send the part. It begins at a time on the run's clock, at which all workers begin; returns at once."""
        self._task = asyncio.create_task(self._load(at))
        self._task.add_done_callback(lambda _: self._news.set())

    async def fetch(self) -> bytes:
        """The next :class:`Batch`, pickled. After the part's last batch, this must not be called."""
        task = self._task
        if task is None:
            raise RuntimeError("no part has begun")
        await self._something(task)
        # In this order: what happens in between is reported next time.
        ended, until = task.done(), self._clock.now()
        reports, self._reports = self._reports, []
        self._news.clear()
        batch = Batch(tuple(reports), until)
        return pickle.dumps(self._last(batch, task) if ended else batch, pickle.HIGHEST_PROTOCOL)

    async def interrupt(self) -> None:
        """End the part now: operations in flight are reported as interrupted."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End everything that is in flight, and close all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._open.aclose()

    async def _something(self, task: "asyncio.Task[ClientHealth]") -> None:
        try:
            async with asyncio.timeout(_QUIET_S):
                await self._news.wait()
        except TimeoutError:
            return
        if not task.done():
            await asyncio.wait([task], timeout=_GATHER_S)

    def _last(self, batch: Batch, task: "asyncio.Task[ClientHealth]") -> Batch:
        batch = replace(batch, last=True)
        if task.cancelled():
            return batch
        if error := task.exception():
            return replace(batch, trouble=str(error) or type(error).__name__)
        return replace(batch, health=task.result())

    async def _load(self, at: float) -> ClientHealth:
        part = self._part
        run = self._run_of(part)
        await self._clock.sleep(max(0.0, at - self._clock.now()))
        async with LoopLag(self._clock) as lag:
            # The schedule counts from the common beginning, also if this worker woke up late.
            await run.load(arrivals_of(part.phase, self._clock, began=at))
            return lag.health(self._sent)

    def _run_of(self, part: Part) -> PhaseRun:
        earlier = conversations, references = Conversations(self._known.values()), References(self._known.values())
        for request, ended in part.turns:
            for one in earlier:
                one.remember(request, ended)
        run = PhaseRun(
            part.scenario, part.phase, self._send, self._report, self._clock, SILENT, conversations, references
        )
        run.goes_on = lambda: self._lasts
        if part.holds_back:
            run.after_failure = self._permitted
        return run

    async def _permitted(self) -> None:
        await self._permits.acquire()

    def _report(self, entry: Entry) -> None:
        if isinstance(entry, Sent):
            self._sent.append(entry)
        if isinstance(entry, Sent | Ended):
            self._reports.append(pack(entry, self._known))
            self._news.set()
