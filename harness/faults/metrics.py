"""Spoils what the harness reads of a server: its ``/metrics`` come slowly, cut, with an error, or with wrong values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harness.errors import UsageError
from harness.faults.fault import NoEvidence
from harness.faults.metrics_spoiled import Spoiling
from harness.faults.site import POLL_S, Site
from harness.history import Tolerated

_KINDS = tuple(spoiling.value for spoiling in Spoiling if spoiling is not Spoiling.NOTHING)


@dataclass(slots=True)
class Metrics:
    """Answer the harness's readings of a server's /metrics slowly, cut, with status 500, NaN, or counts from zero.

    Rule 1. It says nothing about the deployment, whose counters are as they were: what the harness could not read is
            unknown, and never better or worse.
    Rule 2. Counters that are judged are read before and after a load, not during it. So the fault stays at work when
            the load has ended, and its time counts from the first reading that it spoiled. It is healed at the next
            load's beginning at the latest. Readings during the load are made of the server itself, and not spoiled.
    """

    kind: ClassVar[str] = "metrics"
    outlasts_load: ClassVar[bool] = True
    server: str = "decode-0"
    how: str = "500"
    """``slow``, ``cut``, ``short``, ``500``, ``nan`` or ``restarted``; see :class:`Spoiling`."""
    tolerates: tuple[Tolerated, ...] = (Tolerated.UNREAD_METRICS,)

    def __post_init__(self) -> None:
        if self.how not in _KINDS:
            raise ValueError(f"how={self.how}: metrics can be {', '.join(_KINDS)}.")

    @property
    def relayed(self) -> str:
        """The relay that it needs."""
        return f"metrics-{self.server}"

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    @property
    def text(self) -> str:
        """What it does."""
        return f"answer readings of {self.server}'s /metrics with {self.how}"

    async def strike(self, site: Site) -> str:
        """Tell the relay, and wait until it spoiled a reading, however long that takes."""
        if site.relays is None:
            raise UsageError(f"There is no relay before the metrics of {self.server}.")
        await site.relays.tell(self.relayed, how=self.how)
        while not (counts := await site.relays.counted(self.relayed))["spoiled"]:
            await site.clock.sleep(POLL_S)
        return f"{_readings(counts)} answered with {self.how}"

    async def heal(self, site: Site) -> str:
        """Let the relay pass readings; observed by one that it passed."""
        if site.relays is None:
            return ""
        counts = await site.relays.tell(self.relayed, how=Spoiling.NOTHING)
        if not await site.relays.reads_metrics(self.relayed):
            raise NoEvidence(f"the metrics of {self.server} cannot be read through the relay")
        return f"{_readings(counts)} answered with {self.how} in all; now they are passed on"


def _readings(counts: Mapping[str, float]) -> str:
    count = counts["spoiled"]
    return "1 reading of its /metrics was" if count == 1 else f"{count:,.0f} readings of its /metrics were"
