"""A child process that cannot outlive the harness: it runs under ``keeper.py``, with its output in a log file."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_KEEPER = Path(__file__).with_name("keeper.py")
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL; vLLM needs one to two."""
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    """A command with its environment and log file."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


class ChildProcess:
    """A running command. ``stop`` ends it and its descendants.

    asyncio's subprocess is not used: its transport kills the keeper when the loop closes. A killed keeper cannot end
    the command's descendants; a keeper whose pipe closes ends them.
    """

    def __init__(self, command: Command, keeper: "subprocess.Popen[bytes]", log_start: int = 0) -> None:
        self.command = command
        self._keeper = keeper
        self._log_start = log_start

    @classmethod
    def start(cls, command: Command, *, grace: float = GRACE, append: bool = False) -> "ChildProcess":
        """Start the command; returns at once. ``append``: the log of an earlier start is kept."""
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab" if append else "wb") as log:
            # A file that was opened to append says 0 until it is asked for its end.
            log_start = log.seek(0, os.SEEK_END)
            keeper = subprocess.Popen(
                [sys.executable, str(_KEEPER), str(grace), *command.argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(command.environment),
                # So Ctrl-C in the terminal reaches only the harness, which ends its children in order.
                start_new_session=True,
            )
        return cls(command, keeper, log_start)

    def log(self) -> str:
        """What the command wrote since this start; empty if the log is gone."""
        try:
            return self.command.log.read_bytes()[self._log_start :].decode(errors="replace")
        # The run's directory may have been removed.
        except OSError:
            return ""

    @property
    def pid(self) -> int:
        """Process id of the keeper; the command itself is the keeper's child."""
        return self._keeper.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the command and its descendants, without the keeper; Linux only."""
        return tuple(_descendants(self.pid))

    @property
    def status(self) -> int | None:
        """Exit status; None while the command runs."""
        return self._keeper.poll()

    async def wait(self) -> int:
        """Wait until the command has ended; returns its exit status."""
        while (status := self.status) is None:  # noqa: ASYNC110 - there is no event without asyncio's own transport
            await asyncio.sleep(_POLL)
        self._close_pipe()
        return status

    async def stop(self) -> None:
        """End the command and its descendants; returns when they have ended."""
        self._close_pipe()
        await self.wait()

    def _close_pipe(self) -> None:
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()


def _descendants(pid: int) -> Iterator[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:
        return
    for child in map(int, text.split()):
        yield child
        yield from _descendants(child)
