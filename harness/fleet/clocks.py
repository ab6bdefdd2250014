"""Sets the workers' clocks to the run's clock, and measures how well they agree."""

from harness.clock import Clock
from harness.fleet.offset import Exchange, best, correction
from harness.fleet.remote import Remote
from harness.history import ClockCompared

_ROUND_TRIPS = 16
"""Per comparison. The shortest of them counts, and most are short."""


class Clocks:
    """The clocks of a run's workers. Raises WorkerLost if a worker is lost in between."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: dict[str, float] = {}
        """What each worker's own clock is ahead of the run's, in seconds; removed from its times."""
        self._uncertainty: dict[str, float] = {}

    async def set(self, worker: Remote) -> None:
        """Set a worker's clock to the run's, before a phase."""
        exchange = await self._compare(worker)
        change = correction(exchange)
        await worker.call("correct", change)
        self._ahead[worker.name] = self._ahead.get(worker.name, 0.0) - change
        self._uncertainty[worker.name] = exchange.uncertainty

    async def compared(self, worker: Remote) -> ClockCompared:
        """How well the worker's clock agreed with the run's, after a phase."""
        exchange = await self._compare(worker)
        uncertainty = max(self._uncertainty[worker.name], exchange.uncertainty)
        drift = -correction(exchange)
        return ClockCompared(self._clock.now(), worker.name, self._ahead[worker.name], uncertainty, drift)

    async def _compare(self, worker: Remote) -> Exchange:
        exchanges = []
        for _ in range(_ROUND_TRIPS):
            asked = self._clock.now()
            arrived, replied = await worker.call("time")
            exchanges.append(Exchange(asked, arrived, replied, self._clock.now()))
        return best(exchanges)
