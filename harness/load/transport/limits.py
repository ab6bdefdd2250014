"""Time limits of exchanges: all have the same one, so that one timer serves all that go over open connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class TimedOut(Exception):  # noqa: N818 - reads as what happened
    """The client's own limit expired. The kernel's ETIMEDOUT is a TimeoutError, and is not this."""


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Raises TimedOut if the body takes longer."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise TimedOut from error
        raise


class Waits:
    """Futures that fail with TimedOut if they are not done after ``seconds``; for thousands of short waits a second."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        # In the order in which they began, and therefore in which they expire.
        self._expire_at: dict[asyncio.Future[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, future: "asyncio.Future[Any]") -> None:
        """The wait begins now."""
        self._expire_at[future] = at = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._expire)

    def end(self, future: "asyncio.Future[Any]") -> None:
        """The wait has ended."""
        del self._expire_at[future]

    def close(self) -> None:
        """No wait is left."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        # Loops compare times to their clock's resolution: a timer may come that much too early.
        now = self._loop.time() + 0.001
        self._timer = None
        for future, at in self._expire_at.items():
            if at > now:
                self._timer = self._loop.call_at(at, self._expire)
                return
            if not future.done():
                future.set_exception(TimedOut())
