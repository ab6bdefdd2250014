"""Kills all processes of a server, and starts it again: SIGKILL."""

import signal
from dataclasses import dataclass, field
from typing import ClassVar

from harness.faults.fault import NoEvidence
from harness.faults.incarnation import Incarnation
from harness.faults.site import Site
from harness.history import Tolerated

RESTARTING = (Tolerated.ERRORS, Tolerated.RESTART, Tolerated.FAILED_TRANSFERS, Tolerated.UNREAD_METRICS)
"""What may happen when a server is down for a time, and begins again with empty caches."""


@dataclass(slots=True)
class Kill:
    """Kill a server or the proxy (SIGKILL), as a crash or a lack of memory does, and start it again.

    Rule 1: every process of the server gets SIGKILL. Evidence is that all of them have ended, and that the server's
            address does not answer.
    Rule 2: it is healed when other processes run in their place, which say that they started at another time, and the
            server answers.
    """

    kind: ClassVar[str] = "kill"
    server: str = "prefill-0"
    tolerates: tuple[Tolerated, ...] = RESTARTING
    _before: Incarnation | None = field(default=None, init=False)
    _killed: Incarnation | None = field(default=None, init=False)

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    @property
    def text(self) -> str:
        """What it does."""
        return f"kill {self.server} with SIGKILL, and start it again"

    async def prepare(self, site: Site) -> None:
        """Read when the server started: its /metrics may take a second under load."""
        self._before = await Incarnation.read(site, self.server)

    async def strike(self, site: Site) -> str:
        """Kill all its processes; evidence: they have ended, and the address does not answer."""
        found = Incarnation.at_once(site, self.server, self._before)
        if site.processes is None or not found.pids:
            raise NoEvidence(f"{self.server} had ended before")
        self._killed = found
        site.processes.will_end(self.server)
        for pid in found.pids:
            site.table.send(pid, signal.SIGKILL)
        await found.require_end(site, site.patience)
        return f"all processes of {self.server} ({len(found.pids)}) have ended, and its address does not answer"

    async def heal(self, site: Site) -> str:
        """Start it again."""
        if self._killed is None:
            return f"nothing was done to {self.server}"
        return await self._killed.restarted(site)
