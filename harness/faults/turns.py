"""Lets faults take turns, so that what is observed of one is not the effect of another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum


class Alone(StrEnum):
    """What a fault does not share with others that take turns."""

    TARGET = "target"
    """Its server, or the link before it."""
    ALL = "all"
    """The whole deployment."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A fault that waits for its turn, or has it."""

    target: str
    alone: Alone

    def collides(self, other: "_Waiting") -> bool:
        return self.target == other.target or Alone.ALL in (self.alone, other.alone)


class Turns:
    """Who came first has the first turn; faults on different targets do not wait for each other."""

    def __init__(self) -> None:
        self._queue: list[_Waiting] = []
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, target: str, alone: Alone | None) -> AsyncIterator[None]:
        """Wait for the turn, and keep it for the block. None: a fault that does not take turns begins at once."""
        if alone is None:
            yield
            return
        mine = _Waiting(target, alone)
        self._queue.append(mine)
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._before(mine))
            yield
        finally:
            self._queue.remove(mine)
            async with self._changed:
                self._changed.notify_all()

    def _before(self, mine: _Waiting) -> bool:
        return any(mine.collides(other) for other in self._queue[: self._queue.index(mine)])
