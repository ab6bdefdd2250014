"""Workers in the process of the test: stations whose clock, sender and death the test decides."""

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from harness.clock import Clock
from harness.facts import Deployment
from harness.fleet.fleet import Fleet
from harness.fleet.messages import Setup
from harness.fleet.remote import WorkerLost, failure
from harness.fleet.station import Station
from harness.history import Choice, Ended, Outcome
from harness.run import Sending
from harness.scenario import Request

DEPLOYMENT = Deployment((), None, "m")

Answer = Callable[[Request, Clock], Awaitable[Ended]]


async def at_once(request: Request, clock: Clock) -> Ended:
    """Answers with token 7."""
    await clock.sleep(0)
    choice = Choice((7,), " yes", "length")
    return Ended(clock.now(), request.request_id, Outcome.OK, "", 200, choices=(choice,), token_times=(clock.now(),))


async def never(request: Request, clock: Clock) -> Ended:
    """Does not answer."""
    await asyncio.Event().wait()
    return await at_once(request, clock)


class Beside:
    """A worker that runs here. Whatever it is told and tells is pickled, as between processes."""

    def __init__(self, name: str, answer: Answer = at_once, *, ahead: float = 0.0) -> None:
        self.name = name
        self.sent: list[Request] = []
        self._answer = answer
        self._station = Station(self._connect, lambda: time.monotonic() + ahead)
        self._dead = asyncio.Event()

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the station, unless the worker is dead or dies meanwhile."""
        ended = asyncio.create_task(self._dead.wait())
        calling = asyncio.create_task(self._called(method, arguments))
        await asyncio.wait([calling, ended], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if self._dead.is_set():
            calling.cancel()
            raise WorkerLost("was ended by signal 9 (SIGKILL)")
        return calling.result()

    async def close(self) -> None:
        """End it as it should end."""
        await self._station.close()

    def kill(self) -> None:
        """End it as kill -9 does: it reports nothing any more."""
        self._dead.set()

    async def _called(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return _sent_over(await getattr(self._station, method)(*_sent_over(arguments)))
        except Exception as error:
            raise failure(method, error) from error

    @asynccontextmanager
    async def _connect(self, _setup: Setup, clock: Clock) -> AsyncIterator["_Sender"]:
        yield _Sender(self, clock)

    async def answer(self, request: Request, clock: Clock) -> Ended:
        """Note the request, and answer it."""
        self.sent.append(request)
        return await self._answer(request, clock)


def _sent_over(content: Any) -> Any:
    return pickle.loads(pickle.dumps(content))  # noqa: S301 - what was pickled here


class _Sender:
    def __init__(self, worker: Beside, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock

    async def send(self, request: Request) -> Ended:
        return await self._worker.answer(request, self._clock)


@asynccontextmanager
async def fleet_of(workers: list[Beside], clock: Clock) -> AsyncIterator[Fleet]:
    """A fleet of these workers, which are ended at the end."""
    fleet = Fleet(workers, clock)
    await fleet.set_up(DEPLOYMENT, Sending())
    try:
        yield fleet
    finally:
        for worker in workers:
            await worker.close()
