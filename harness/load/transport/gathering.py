"""Reads arrivals a little later and several at a time, when there are so many that reading each alone costs a core.

Most of what a stream in many pieces costs a client is the system call and the wake-up for each piece. Network cards
have the same trouble and the same answer: interrupt coalescing.

Rule 1: only above ``DENSE`` pieces per second, near what a core can take; below it, nothing is delayed.
Rule 2: then the event loop reads at most once in ``INTERVAL_S``. What arrived in the meantime is read, and stamped, at
        the end of it, so that a stamp is late by the interval at most, and by half of it in the mean.
Rule 3: a loop that is behind is not delayed: the time since it last began to read counts.
"""

import asyncio
import time
from collections.abc import Callable

INTERVAL_S = 0.0005
"""Seconds. Half of the millisecond that the client's time stamps may be off."""
DENSE = 50_000
"""Pieces per second. Reading that many one by one takes a fifth of a core, and more on slower machines."""
_WINDOW_S = 0.01
"""Seconds over which pieces are counted: long enough for one busy turn of the loop not to count as dense."""


class Gathering:
    """Delays an event loop's next reads. ``wait`` blocks the loop's thread for so many seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._wait = wait
        self._scheduled = False
        self._pieces = 0
        self._window_from = self._read_from = clock()
        self.is_dense = False

    def count(self, pieces: int) -> None:
        """So many pieces were just read."""
        self._pieces += pieces
        if not self._scheduled:
            # The loop calls this when it has read all that had arrived, before it looks for more.
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        now = self._clock()
        if (elapsed := now - self._window_from) >= _WINDOW_S:
            self.is_dense = self._pieces >= DENSE * elapsed
            self._pieces, self._window_from = 0, now
        if self.is_dense and (left := self._read_from + INTERVAL_S - now) > 0:
            self._wait(left)
            now = self._clock()
        self._read_from = now
