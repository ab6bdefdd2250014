"""The run's clock: seconds since the run began. Injected, so that tests wait for nothing."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where times come from, and how to wait."""

    def now(self) -> float:
        """Seconds since the run began; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 gives other tasks a turn."""
        ...


class MonotonicClock:
    """The real one."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def now(self) -> float:
        """Seconds since this clock was made."""
        return time.monotonic() - self._started

    async def sleep(self, seconds: float) -> None:
        """Wait for real."""
        await asyncio.sleep(seconds)
