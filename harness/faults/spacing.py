"""Holds clients back whose requests failed while a fault was at work.

A server that is down refuses at once. Clients that went on at once, too, would have spent thousands of requests before
the server is up again, and there would be none left to show whether it recovered. So they go on one after another,
``FAILURES_PER_S`` a second, and the last ``KEPT`` of the load's requests wait until the fault is undone. Requests that
complete hold nobody back, and when all requests have ended, nobody waits any more.

Of several faults, one may need requests to be observed, such as a link that is used at a server's first request after
its restart. So when one of them is undone and others are still at work, a few of the last requests go on, too, one
every ``TRIES_S`` seconds.
"""

from collections.abc import Callable

from harness.clock import Clock

FAILURES_PER_S = 1.0
"""A real engine needs 50 to 100 s to start on two busy cores: about as many failed requests."""
KEPT = 0.25
"""Share of the load that is kept for the time after the fault, however long a server takes to start."""
TRIES_S = 4.0
"""Seconds between requests of the last ``KEPT``, after one of several faults was undone."""
_POLL_S = 0.1


class Spacing:
    """How long a client waits after a failed request."""

    def __init__(self, clock: Clock, recovery_s: float) -> None:
        self._clock = clock
        self._recovery_s = recovery_s
        """Seconds after the healing in which failed requests still hold their clients back."""
        self._at_work = 0
        self._until = 0.0
        self._next = 0.0
        self._next_try = 0.0
        """When one of the last requests may go on, although a fault is at work."""

    def began(self) -> None:
        """A fault is at work."""
        self._at_work += 1

    def healed(self) -> None:
        """A fault is no longer at work."""
        self._at_work -= 1
        self._until = self._clock.now() + self._recovery_s
        # Whoever waits tries at once.
        self._next = self._clock.now()

    async def after_failure(self, left: Callable[[], float]) -> None:
        """Wait for this client's turn. ``left``: the share of the load that has not ended."""
        if not (self._at_work or self._clock.now() < self._until):
            return
        self._next = turn = max(self._clock.now(), self._next) + 1 / FAILURES_PER_S
        while self._holds(turn, left()):
            await self._clock.sleep(_POLL_S)

    def _holds(self, turn: float, left: float) -> bool:
        if left <= 0:
            return False
        if self._at_work and left <= KEPT:
            return not self._may_try()
        # ``_next`` is less only after a healing.
        return self._clock.now() < turn <= self._next

    def _may_try(self) -> bool:
        now = self._clock.now()
        if now >= self._until or now < self._next_try:
            return False
        self._next_try = now + TRIES_S
        return True
