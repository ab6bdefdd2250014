"""What faults have in common after which other processes serve in place of a server's own: kill and drain."""

from dataclasses import dataclass, field

from harness.faults.fault import NoEvidence
from harness.faults.incarnation import Incarnation
from harness.faults.site import Site
from harness.history import Tolerated

RESTARTING = (Tolerated.ERRORS, Tolerated.RESTART, Tolerated.FAILED_TRANSFERS, Tolerated.UNREAD_METRICS)
"""What may happen when a server is down for a time, and begins again with empty caches."""


@dataclass(slots=True)
class Restarting:
    """Ends a server, in a way of its own, and starts it again."""

    server: str = "prefill-0"
    tolerates: tuple[Tolerated, ...] = RESTARTING
    _before: Incarnation | None = field(default=None, init=False)
    _ended: Incarnation | None = field(default=None, init=False)

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    async def prepare(self, site: Site) -> None:
        """Read when the server started: its /metrics may take a second under load."""
        self._before = await Incarnation.read(site, self.server)

    def _found(self, site: Site) -> Incarnation:
        """The server's processes, which are about to be ended. Raises NoEvidence if there are none."""
        found = Incarnation.at_once(site, self.server, self._before)
        if site.processes is None or not found.pids:
            raise NoEvidence(f"{self.server} had ended before")
        self._ended = found
        site.processes.will_end(self.server)
        return found

    async def heal(self, site: Site) -> str:
        """Start it again."""
        if self._ended is None:
            return f"nothing was done to {self.server}"
        return await self._ended.restarted(site)
