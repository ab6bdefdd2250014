"""A server before and after its restart: which processes it had, and when they started."""

from dataclasses import dataclass

from harness.errors import DeployError
from harness.faults.fault import NoEvidence
from harness.faults.health import answers, until_refuses, url_of
from harness.faults.site import Site
from harness.faults.targets import running_pids


@dataclass(frozen=True, slots=True)
class Incarnation:
    """The processes of a server from one start to its end."""

    server: str
    pids: tuple[int, ...]
    started: float | None
    """process_start_time_seconds of the server's /metrics; None if it cannot be read."""

    @classmethod
    async def read(cls, site: Site, server: str) -> "Incarnation":
        """The processes that run, with their start. Raises UsageError if the harness started no such server."""
        return cls(server, running_pids(site, server), await site.value(server, "process_start"))

    @classmethod
    def at_once(cls, site: Site, server: str, before: "Incarnation | None") -> "Incarnation":
        """The processes that run, without asking the server: with the start that was read ``before``, if they ran then.

        Raises UsageError if the harness started no such server.
        """
        pids = running_pids(site, server)
        return cls(server, pids, before.started if before is not None and before.pids == pids else None)

    @property
    def main(self) -> int:
        """The id of the command itself, which started the other processes."""
        return self.pids[0]

    def left(self, site: Site) -> tuple[int, ...]:
        """The processes that have not ended, with those that were started meanwhile."""
        old = (pid for pid in self.pids if not site.table.is_gone(pid))
        return tuple(dict.fromkeys((*old, *(pid for pid in running_pids(site, self.server) if pid not in self.pids))))

    async def require_end(self, site: Site, patience: float) -> None:
        """Wait until all its processes have ended and nobody listens at its address. Raises NoEvidence.

        A server that does not answer in time may be busy, or stopped by another fault: that would be no evidence.
        """
        if not self.pids:
            raise NoEvidence(f"{self.server} had ended before")
        if not await site.until(lambda: not self.left(site), patience):
            raise NoEvidence(f"processes of {self.server} still run after {patience:g} s: {_listed(self.left(site))}")
        if not await until_refuses(site, url_of(site, self.server), patience):
            raise NoEvidence(
                f"{self.server} still accepts connections, although its processes {_listed(self.pids)} have ended"
            )

    async def restarted(self, site: Site) -> str:
        """Start the server again; returns what shows that others run in its place. Raises NoEvidence."""
        if site.processes is None:
            raise NoEvidence(f"the harness did not start {self.server}, and cannot start it again")
        began = site.clock.now()
        try:
            await site.processes.restart(self.server)
        except DeployError as error:
            raise NoEvidence(f"{self.server} did not start again: {error}") from None
        after = await Incarnation.read(site, self.server)
        if not after.pids or set(after.pids) & set(self.pids):
            raise NoEvidence(f"after the restart of {self.server}, its processes are {_listed(after.pids)}")
        if self.started is not None and self.started == after.started:
            raise NoEvidence(f"{self.server} says that it was not restarted: it started at {self.started}, as before")
        if not await answers(url_of(site, self.server), site.patience):
            raise NoEvidence(f"{self.server} was started again, but does not answer")
        return f"{_changed(self, after)}; it answered {site.clock.now() - began:.1f} s after its start"


def _changed(before: Incarnation, after: Incarnation) -> str:
    ids = f"{before.server} has the processes {_listed(after.pids)} in place of {_listed(before.pids)}"
    if before.started is None or after.started is None:
        return ids
    return f"{ids}, and process_start_time_seconds {after.started:.2f} in place of {before.started:.2f}"


def _listed(pids: tuple[int, ...]) -> str:
    return ", ".join(map(str, pids)) or "none"
