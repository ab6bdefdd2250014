"""Child processes that come up together and go down together, and what to say when one does not."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp

from harness.clock import Clock
from harness.deploy import startup
from harness.deploy.process import ChildProcess, Command, stop_all
from harness.errors import DeployError
from harness.observer import RunObserver

POLL = 0.25
"""Seconds between two looks at a starting server."""


class Nursery:
    """Starts processes, waits until they answer, ends them all."""

    def __init__(self, logs: Path, clock: Clock, ready_timeout: float, observer: RunObserver) -> None:
        self._logs = logs
        self._clock = clock
        self._ready_timeout = ready_timeout
        self._observer = observer
        self._processes: dict[str, ChildProcess] = {}

    def start(self, name: str, argv: Iterable[str], environment: Mapping[str, str]) -> None:
        """Start one; returns at once."""
        command = Command(name, tuple(argv), environment, self._logs / f"{name}.log")
        self._processes[name] = ChildProcess.start(command)

    async def all_answer(self, urls: Mapping[str, str]) -> None:
        """Return when every named process says 200 at its URL's /health.

        Raises:
            DeployError: one ended, or was not ready in time; carries its own words.

        """
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                for name, url in urls.items():
                    group.create_task(self._answers(name, url, session))
        except* DeployError as failures:
            # One's failure is the news; the others were only cancelled because of it.
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """End them all. Shielded: a second Ctrl-C must not leave half of them running."""
        await asyncio.shield(stop_all(list(self._processes.values())))

    def pid(self, name: str) -> int:
        """Process id of a process's keeper."""
        return self._processes[name].pid

    def dead(self) -> dict[str, str]:
        """Why each process ended that should still run, by name."""
        return {name: _obituary(process) for name, process in self._processes.items() if process.status is not None}

    def complaints(self) -> dict[str, str]:
        """The first exception in each process's log, by name; those whose log has one."""
        causes = {name: startup.cause(_log(process)) for name, process in self._processes.items()}
        return {name: cause for name, cause in causes.items() if cause is not None}

    async def _answers(self, name: str, url: str, session: aiohttp.ClientSession) -> None:
        process = self._processes[name]
        started = self._clock.now()
        while not await _healthy(session, url):
            elapsed = self._clock.now() - started
            if process.status is not None:
                raise DeployError(_obituary(process))
            if elapsed > self._ready_timeout:
                raise DeployError(_overdue(process, elapsed))
            self._observer.deploy(name, startup.stage(_log(process)) or "starting", elapsed)
            await self._clock.sleep(POLL)
        self._observer.deploy(name, "answering", self._clock.now() - started)


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=2)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _log(process: ChildProcess) -> str:
    try:
        return process.command.log.read_text(errors="replace")
    except OSError:  # somebody removed the run's directory: nothing is told by it any more
        return ""


def _obituary(process: ChildProcess) -> str:
    log = _log(process)
    why = startup.cause(log) or f"its log ends:\n{startup.last_lines(log)}"
    return f"{process.command.name} ended with status {process.status}: {why}\nIts whole log: {process.command.log}"


def _overdue(process: ChildProcess, seconds: float) -> str:
    doing = startup.stage(_log(process)) or "starting"
    return (
        f"{process.command.name} did not answer within {seconds:.0f} s; it was last seen {doing}. Give it more time "
        f"with --ready-check-timeout-sec, or look at its log: {process.command.log}"
    )
