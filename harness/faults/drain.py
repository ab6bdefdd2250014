"""Ends a server as an orchestrator does (SIGTERM, and SIGKILL if it takes too long), and starts it again."""

import signal
from dataclasses import dataclass
from typing import ClassVar

from harness.faults.fault import NoEvidence
from harness.faults.health import answers, url_of
from harness.faults.restarting import Restarting
from harness.faults.site import Site


@dataclass(slots=True)
class Drain(Restarting):
    """End a server or the proxy in order (SIGTERM), as a rolling update does, and start it again.

    Rule 1: the server's first process gets SIGTERM, and has ``grace`` seconds to end by itself; all that is left of the
            server then gets SIGKILL. The evidence says how far it came by itself.
    Rule 2: evidence is that SIGTERM had an effect: one of the server's processes ended by itself, or its address
            answered no more. A server that went on as before until it was killed was not drained.
    Rule 3: it is healed as after ``kill``.
    """

    kind: ClassVar[str] = "drain"
    server: str = "decode-0"
    grace: float = 30.0
    """Seconds; the default of Kubernetes (terminationGracePeriodSeconds)."""

    @property
    def text(self) -> str:
        """What it does."""
        return f"end {self.server} with SIGTERM, and start it again"

    async def strike(self, site: Site) -> str:
        """Ask it to end; evidence: its processes have ended, and the address refuses connections."""
        found = self._found(site)
        began = site.clock.now()
        site.table.send(found.main, signal.SIGTERM)
        by_itself = await site.until(lambda: not found.left(site), self.grace)
        took = site.clock.now() - began
        left = found.left(site)
        heard = set(left) != set(found.pids) or not await answers(url_of(site, self.server))
        for pid in left:
            site.table.send(pid, signal.SIGKILL)
        await found.require_end(site, site.patience)
        if not heard:
            raise NoEvidence(
                f"{self.server} went on for {self.grace:g} s after SIGTERM as before it, until it was killed"
            )
        how = f"ended by itself {took:.1f} s after SIGTERM" if by_itself else _killed(len(left), self.grace)
        return f"{self.server} {how}, and its address refuses connections"


def _killed(left: int, grace: float) -> str:
    return f"did not end by itself: {left} of its processes were killed {grace:g} s after SIGTERM"
