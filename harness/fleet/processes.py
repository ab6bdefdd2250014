"""Workers that are processes of this machine."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

from harness.fleet.frames import read_frame, write_frame
from harness.fleet.remote import Remote, WorkerLost

_ENDS_WITHIN_S = 5.0
"""Seconds that a worker may take to close its connections; then it is killed."""
_POLL_S = 0.02


class ProcessWorker:
    """A worker's process, reached through a socket pair."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        self._name = name
        self._process = process
        self._calls = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._lost: str | None = None
        self._listening: asyncio.Task[None]
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, name: str, log: Path | None) -> "ProcessWorker":
        """Start the process, with its output in ``log``; returns before it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            worker = cls(name, _started(theirs, log))
        reader, worker._writer = await asyncio.open_connection(sock=ours)
        worker._listening = asyncio.create_task(worker._listen(reader))
        return worker

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._name

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the station, as in :class:`Remote`."""
        if self._lost is not None:
            raise WorkerLost(self._lost)
        number = next(self._calls)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        # If the process has ended, the listening task learns how, and tells all who wait.
        with contextlib.suppress(EOFError):
            await write_frame(self._writer, (number, method, arguments))
        return await answer

    async def close(self) -> None:
        """Close the connection, at which the process ends; kill it if it does not."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._status()
        self._process.kill()
        await self._status()
        self._listening.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(EOFError):
            while True:
                number, error, result = await read_frame(reader)
                answer = self._waiting.pop(number)
                if answer.done():
                    continue
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(error)
        self._lost = _how(await self._status())
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WorkerLost(self._lost))

    async def _status(self) -> int:
        while (status := self._process.poll()) is None:  # noqa: ASYNC110 - an event would need a thread for each worker
            await asyncio.sleep(_POLL_S)
        return status


@contextlib.asynccontextmanager
async def local_workers(number: int, logs: Path | None = None) -> AsyncIterator[list[Remote]]:
    """So many workers on this machine; ended at the end. Their output goes to files in ``logs``."""
    async with contextlib.AsyncExitStack() as started:
        workers: list[Remote] = []
        for index in range(number):
            name = f"worker-{index}"
            worker = await ProcessWorker.start(name, logs and logs / f"{name}.log")
            started.push_async_callback(worker.close)
            workers.append(worker)
        yield workers


def _started(end: socket.socket, log: Path | None) -> "subprocess.Popen[bytes]":
    """The process of a worker that is reached through the other end of the pair."""
    with open(log or os.devnull, "wb") as output:  # noqa: PTH123 - one of the two is no path
        return subprocess.Popen(
            [sys.executable, "-m", "harness.fleet.worker", str(end.fileno())],
            pass_fds=[end.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": _path()},
            # So Ctrl-C in the terminal reaches only the main process, which interrupts its workers in order.
            start_new_session=True,
        )


def _path() -> str:
    """A search path on which a worker finds this harness, also where it is not installed."""
    here = str(Path(__file__).parent.parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by signal {-status} ({signal.Signals(-status).name})"
    return f"ended by itself with status {status}"
