"""What a fault works on: the processes and addresses of a running deployment. Other rooms provide it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.clock import Clock
from harness.facts import Deployment
from harness.faults.load_watch import LoadWatch
from harness.faults.proc import ProcessTable

POLL_S = 0.02
"""Seconds between two looks for evidence."""


class Processes(Protocol):
    """The processes that the harness started, by name (``prefill-0``, ``decode-0``, ``proxy``)."""

    def pids(self, name: str) -> tuple[int, ...]:
        """The ids of the named command's process and its descendants; empty if it has ended or was never started."""
        ...

    def names(self) -> tuple[str, ...]:
        """The processes that were started, in order."""
        ...

    def ended(self) -> Mapping[str, int]:
        """The exit statuses of the commands that have ended by now, for whatever reason, by name."""
        ...

    def will_end(self, name: str) -> None:
        """Note that a fault is about to end the command: until it is started again, it has not died by itself."""
        ...

    async def restart(self, name: str) -> None:
        """End what is left of the command, start it again as it was started first, and return when it answers.

        Raises DeployError if it does not answer in time.
        """
        ...


class Relays(Protocol):
    """The relays of the harness that stand before servers, by the name of the link."""

    @property
    def urls(self) -> Mapping[str, str]:
        """The address of each relay, by its name."""
        ...

    async def tell(self, name: str, **order: object) -> Mapping[str, float]:
        """Tell a relay what to do; returns what it counted until then. Raises NoEvidence if it does not answer."""
        ...

    async def counted(self, name: str) -> Mapping[str, float]:
        """What a relay counted since it was told last. Raises NoEvidence if it does not answer."""
        ...

    async def reads_metrics(self, name: str) -> bool:
        """Whether ``/metrics`` can be read through a relay."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """A running deployment, as far as faults may touch it."""

    deployment: Deployment
    clock: Clock
    processes: Processes | None = None
    """None: the harness started no process (it attached to a running deployment)."""
    relays: Relays | None = None
    """None: no fault of the run needs one."""
    table: ProcessTable = field(default_factory=ProcessTable)
    patience: float = 10.0
    """Seconds within which a fault must be observed to have taken hold, and its healing."""
    values: Callable[[str], Awaitable[Mapping[str, float]]] | None = None
    """Reads a server's counters and gauges, by their names in ``harness.observe.counters``; nothing if it does not
    answer."""

    @property
    def long_patience(self) -> float:
        """Seconds within which a server must answer again, which may be swapped out, or have a backlog to serve."""
        return 6 * self.patience

    async def value(self, server: str, name: str) -> float | None:
        """One counter or gauge of a server; None if it cannot be read."""
        return None if self.values is None else (await self.values(server)).get(name)

    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers with which the servers are asked, as for all requests of the run."""
    load: LoadWatch | None = None
    """The load that is being sent; None before and after."""

    async def until(self, holds: Callable[[], bool], patience: float | None = None) -> bool:
        """Whether it holds within the patience; looks again and again until then."""
        deadline = self.clock.now() + (self.patience if patience is None else patience)
        while not holds():
            if self.clock.now() >= deadline:
                return False
            await self.clock.sleep(POLL_S)
        return True
