"""Ends a server as an orchestrator does (SIGTERM, and SIGKILL if it takes too long), and starts it again."""

import signal
from dataclasses import dataclass, field
from typing import ClassVar

from harness.faults.fault import NoEvidence
from harness.faults.incarnation import Incarnation
from harness.faults.kill import RESTARTING
from harness.faults.site import Site
from harness.history import Tolerated


@dataclass(slots=True)
class Drain:
    """End a server or the proxy in order (SIGTERM), as a rolling update does, and start it again.

    Rule 1: the server's first process gets SIGTERM, and has ``grace`` seconds to end by itself; all that is left of the
            server then gets SIGKILL. The evidence says how far it came by itself.
    Rule 2: it is healed as after ``kill``.
    """

    kind: ClassVar[str] = "drain"
    server: str = "decode-0"
    grace: float = 30.0
    """Seconds; the default of Kubernetes (terminationGracePeriodSeconds)."""
    tolerates: tuple[Tolerated, ...] = RESTARTING
    _before: Incarnation | None = field(default=None, init=False)
    _drained: Incarnation | None = field(default=None, init=False)

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    @property
    def text(self) -> str:
        """What it does."""
        return f"end {self.server} with SIGTERM, and start it again"

    async def prepare(self, site: Site) -> None:
        """Read when the server started: its /metrics may take a second under load."""
        self._before = await Incarnation.read(site, self.server)

    async def strike(self, site: Site) -> str:
        """Ask it to end; evidence: its processes have ended, and the address does not answer."""
        found = Incarnation.at_once(site, self.server, self._before)
        if site.processes is None or not found.pids:
            raise NoEvidence(f"{self.server} had ended before")
        self._drained = found
        site.processes.will_end(self.server)
        began = site.clock.now()
        site.table.send(found.main, signal.SIGTERM)
        by_itself = await site.until(lambda: not found.left(site), self.grace)
        took = site.clock.now() - began
        left = found.left(site)
        for pid in left:
            site.table.send(pid, signal.SIGKILL)
        await found.require_end(site, site.patience)
        how = f"ended by itself {took:.1f} s after SIGTERM" if by_itself else _killed(len(left), self.grace)
        return f"{self.server} {how}, and its address does not answer"

    async def heal(self, site: Site) -> str:
        """Start it again."""
        if self._drained is None:
            return f"nothing was done to {self.server}"
        return await self._drained.restarted(site)


def _killed(left: int, grace: float) -> str:
    return f"did not end by itself: {left} of its processes were killed {grace:g} s after SIGTERM"
