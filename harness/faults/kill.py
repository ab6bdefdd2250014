"""Kills all processes of a server, and starts it again: SIGKILL."""

import signal
from dataclasses import dataclass
from typing import ClassVar

from harness.faults.restarting import Restarting
from harness.faults.site import Site


@dataclass(slots=True)
class Kill(Restarting):
    """Kill a server or the proxy (SIGKILL), as a crash or a lack of memory does, and start it again.

    Rule 1: every process of the server gets SIGKILL. Evidence is that all of them have ended, and that the server's
            address refuses connections.
    Rule 2: it is healed when other processes run in their place, which say that they started at another time, and the
            server answers.
    """

    kind: ClassVar[str] = "kill"
    server: str = "prefill-0"

    @property
    def text(self) -> str:
        """What it does."""
        return f"kill {self.server} with SIGKILL, and start it again"

    async def strike(self, site: Site) -> str:
        """Kill all its processes; evidence: they have ended, and the address refuses connections."""
        found = self._found(site)
        for pid in found.pids:
            site.table.send(pid, signal.SIGKILL)
        await found.require_end(site, site.patience)
        return f"all processes of {self.server} ({len(found.pids)}) have ended, and its address refuses connections"
