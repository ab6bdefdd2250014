"""Child processes that start and end together, and the error message if one of them fails."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp

from harness.clock import Clock
from harness.deploy import startup
from harness.deploy.process import ChildProcess, Command
from harness.errors import DeployError
from harness.observer import RunObserver

POLL = 0.25
"""Seconds between two requests to a starting server."""


class Nursery:
    """A group of child processes: starts them, waits until they answer, ends them all."""

    def __init__(self, logs: Path, clock: Clock, ready_timeout: float, observer: RunObserver) -> None:
        self._logs = logs
        self._clock = clock
        self._ready_timeout = ready_timeout
        self._observer = observer
        self._processes: dict[str, ChildProcess] = {}
        self._urls: dict[str, str] = {}
        self._to_end: set[str] = set()
        self._ended_before: dict[str, str] = {}
        """Why commands ended by themselves that were started again since, by name."""

    def start(self, name: str, argv: Iterable[str], environment: Mapping[str, str]) -> None:
        """Start one process; returns at once."""
        command = Command(name, tuple(argv), environment, self._logs / f"{name}.log")
        self._processes[name] = ChildProcess.start(command)

    async def all_answer(self, urls: Mapping[str, str]) -> None:
        """Return when every process answers 200 at /health. Raises DeployError, with the log's end, if one fails."""
        self._urls |= urls
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                for name, url in urls.items():
                    group.create_task(self._answers(name, url, session))
        except BaseExceptionGroup as failures:
            # The first failure cancelled the other tasks. (What is raised within ``except*`` may come out in a group.)
            first = next((one for one in failures.exceptions if isinstance(one, DeployError)), None)
            if first is None:
                raise
            raise first from None

    async def stop(self) -> None:
        """End all processes. Shielded: a second Ctrl-C must not leave some of them running."""
        await asyncio.shield(asyncio.gather(*(process.stop() for process in self._processes.values())))

    def names(self) -> tuple[str, ...]:
        """The processes that were started, in order."""
        return tuple(self._processes)

    def pids(self, name: str) -> tuple[int, ...]:
        """The ids of a command's process and its descendants, without its keeper; empty if it has ended."""
        return self._processes[name].pids

    def will_end(self, name: str) -> None:
        """A fault is about to end this command: until it is started again, its end is no death by itself."""
        self._to_end.add(name)

    async def restart(self, name: str) -> None:
        """End what is left of a command, start it again as it was, and return when it answers.

        Raises DeployError, with the log's end, if it does not answer in time.
        """
        before = self._processes[name]
        if (why := self._death(name)) is not None:
            self._ended_before[name] = why
        self._to_end.add(name)
        await before.stop()
        self._processes[name] = ChildProcess.start(before.command, append=True)
        self._to_end.discard(name)
        await self.all_answer({name: self._urls[name]})

    def pid(self, name: str) -> int:
        """The process id of a process's keeper."""
        return self._processes[name].pid

    def dead(self) -> dict[str, str]:
        """The processes that ended by themselves, with the reason of each, by name.

        One that was started again since is among them; one that a fault ended is not.
        """
        now = {name: why for name in self._processes if (why := self._death(name)) is not None}
        return {**self._ended_before, **now}

    def ended(self) -> dict[str, int]:
        """The exit statuses of the processes that have ended by now, for whatever reason, by name."""
        found = ((name, process.status) for name, process in self._processes.items())
        return {name: status for name, status in found if status is not None}

    def _death(self, name: str) -> str | None:
        """Why a command has ended by itself; None if it runs, or if a fault ended it."""
        process = self._processes[name]
        return None if process.status is None or name in self._to_end else _ended(process)

    def logged_errors(self) -> dict[str, str]:
        """The first exception in each process's log, by name; processes without one in their log are left out."""
        causes = {name: startup.cause(process.log()) for name, process in self._processes.items()}
        return {name: cause for name, cause in causes.items() if cause is not None}

    async def _answers(self, name: str, url: str, session: aiohttp.ClientSession) -> None:
        process = self._processes[name]
        started = self._clock.now()
        while not await _healthy(session, url):
            elapsed = self._clock.now() - started
            if process.status is not None:
                raise DeployError(_ended(process))
            if elapsed > self._ready_timeout:
                raise DeployError(_timed_out(process, elapsed))
            self._observer.deploy(name, startup.stage(process.log()) or "starting", elapsed)
            await self._clock.sleep(POLL)
        self._observer.deploy(name, "answering", self._clock.now() - started)


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=2)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _ended(process: ChildProcess) -> str:
    log = process.log()
    why = startup.cause(log) or f"its log ends:\n{startup.last_lines(log)}"
    return f"{process.command.name} ended with status {process.status}: {why}\nIts whole log: {process.command.log}"


def _timed_out(process: ChildProcess, seconds: float) -> str:
    stage = startup.stage(process.log()) or "starting"
    return (
        f"{process.command.name} did not answer within {seconds:.0f} s. The last stage in its log: {stage}. Give it "
        f"more time with --ready-check-timeout-sec, or look at its log: {process.command.log}"
    )
