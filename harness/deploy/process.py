"""A child process that cannot outlive the harness: started under ``keeper.py``, its output in a log file."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KEEPER = Path(__file__).with_name("keeper.py")
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL; vLLM needs one to two."""
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    """What to run."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


class ChildProcess:
    """A running command. ``stop`` ends it and everything it started.

    Not asyncio's subprocess: its transport kills a process that still runs when the loop closes, and a killed
    keeper ends nothing. A keeper whose pipe closes does.
    """

    def __init__(self, command: Command, keeper: "subprocess.Popen[bytes]") -> None:
        self.command = command
        self._keeper = keeper

    @classmethod
    def start(cls, command: Command, *, grace: float = GRACE) -> "ChildProcess":
        """Start it; returns at once."""
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, str(_KEEPER), str(grace), *command.argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(command.environment),
                # Ctrl-C in the terminal goes to the harness alone, which then ends its children in order.
                start_new_session=True,
            )
        return cls(command, keeper)

    @property
    def pid(self) -> int:
        """Of the keeper; the command itself is its child."""
        return self._keeper.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._keeper.poll()

    async def wait(self) -> int:
        """Exit status, once it has ended."""
        while (status := self.status) is None:  # noqa: ASYNC110 - only asyncio's own transport would tell
            await asyncio.sleep(_POLL)
        self._let_go()
        return status

    async def stop(self) -> None:
        """End it and its descendants; returns when they are gone."""
        self._let_go()
        await self.wait()

    def _let_go(self) -> None:
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()


async def stop_all(processes: Sequence[ChildProcess]) -> None:
    """End several at once: each may need its grace."""
    await asyncio.gather(*(process.stop() for process in processes))
