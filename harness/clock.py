"""The run's clock: seconds since the run began. The clock is a parameter, so that tests set the time and never wait."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The source of times, and a way to wait."""

    def now(self) -> float:
        """Seconds since the run began; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 gives other tasks a turn."""
        ...


class MonotonicClock:
    """The real clock."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def now(self) -> float:
        """Seconds since this clock was made."""
        return time.monotonic() - self._started

    async def sleep(self, seconds: float) -> None:
        """Wait with asyncio."""
        await asyncio.sleep(seconds)
