"""Leases on the blocks that P holds for D (rule 1 of ``transfer.py``), and how D renews them.

While a request waits on D, heartbeats renew its lease on P, one every sixth of the lease.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from harness.sim.blocks import BlockPool, KVMemory, Page
from harness.sim.config import SimConfig
from harness.sim.fabric import Address, Fabric
from harness.sim.pull import remote_blocks
from harness.sim.sequence import Sequence
from harness.sim.stats import ServerStats


class ReleaseFaults(Protocol):
    """The hooks through which planted bugs change what P does when D has read a request's blocks."""

    def ignores_notification(self, request_id: str) -> bool:
        """Whether P forgets to release the blocks."""

    def on_release(self, sequence: Sequence) -> None:
        """Change what is released."""


class Leases:
    """The requests whose blocks P holds until D has notified it, or until their lease has ended."""

    def __init__(self, config: SimConfig, stats: ServerStats, now: Callable[[], float], faults: ReleaseFaults) -> None:
        self.config, self.stats, self.now, self._faults = config, stats, now, faults
        self.ends: dict[str, float] = {}
        """When each lease ends, on the engine's clock."""
        self.held: dict[str, Sequence] = {}
        """Requests on P whose blocks a notification may release."""
        self._inbox: list[str] = []
        self.lapsed: list[Sequence] = []
        """Requests whose lease a planted bug ended."""

    def begin(self, sequence: Sequence) -> None:
        """Start the lease of a finished request."""
        self.ends[sequence.id] = self.now() + self.config.lease_seconds

    def notify(self, request_id: str) -> None:
        """Take D's notification that it has read a request's blocks."""
        self._inbox.append(request_id)

    def lapse(self, request_id: str, pages: Mapping[int, Page], pool: BlockPool, memory: KVMemory) -> bool:
        """End a request's lease and overwrite blocks, for a planted bug; False if there is no such lease."""
        if request_id not in self.ends:
            return False
        self.lapsed.append(self._expire(request_id))
        for block, page in pages.items():
            pool.evict(block)
            memory.write(block, page)
        return True

    def renew(self, request_id: str) -> None:
        """Renew the lease of a request that still waits on D."""
        if request_id in self.ends:
            renewed = self.now() + self.config.lease_seconds * 2 / 3
            self.ends[request_id] = max(self.ends[request_id], renewed)

    def released(self) -> list[Sequence]:
        """Return the requests whose blocks can be freed: D has notified P, or the lease has ended."""
        inbox, self._inbox = self._inbox, []
        done = []
        for request_id in inbox:
            if request_id not in self.held:
                self.stats.notifications_after_expiry += 1
            elif not self._faults.ignores_notification(self.held[request_id].request_id):
                self.ends.pop(request_id, None)
                done.append(self.held.pop(request_id))
                self._faults.on_release(done[-1])
            else:
                self.ends[request_id] = float("inf")
        done += self.lapsed
        self.lapsed = []
        return done + [self._expire(request_id) for request_id in self._overdue()]

    def _overdue(self) -> list[str]:
        now = self.now()
        return [request_id for request_id, end in self.ends.items() if now >= end]

    def _expire(self, request_id: str) -> Sequence:
        """End the lease of a request whose blocks D has not read."""
        self.stats.expired_requests += 1
        del self.ends[request_id]
        return self.held.pop(request_id)

    def still_holds(self, sequence: Sequence) -> bool:
        """Ground truth: whether the parameters of a request on D name exactly the blocks that P holds for it."""
        params = sequence.params or {}
        holder = self.held.get(str(params.get("remote_request_id")))
        return (
            holder is not None
            and holder.prompt == sequence.prompt
            and holder.root == sequence.root
            and holder.blocks == remote_blocks(sequence)
            and len(holder.blocks) == -(-len(sequence.prompt) // self.config.block_size)
        )

    @property
    def has_work(self) -> bool:
        """Whether ``released`` would do something now."""
        return bool(self._inbox or self.lapsed or self._overdue())


class Heartbeats:
    """Renews the leases on P of requests that wait on D."""

    def __init__(self, config: SimConfig, fabric: Fabric, now: Callable[[], float]) -> None:
        self.config, self.fabric, self.now = config, fabric, now
        self._renewed: dict[str, tuple[Address, str]] = {}
        self._last_beat = -1e9

    def begin(self, sequence: Sequence, address: Address, remote_request_id: str) -> None:
        """Renew the lease that P, at ``address``, has on ``remote_request_id``, while the request waits."""
        self._renewed[sequence.id] = address, remote_request_id

    def end(self, sequence: Sequence) -> None:
        """Renew a request's lease no longer."""
        self._renewed.pop(sequence.id, None)

    def send(self) -> None:
        """Renew all leases if it is time."""
        if self._renewed and self.now() >= self.next_beat:
            self._last_beat = self.now()
            for address, request_id in self._renewed.values():
                self.fabric.renew(address, request_id)

    @property
    def next_beat(self) -> float:
        """When the leases must be renewed, on the engine's clock."""
        return self._last_beat + self.config.lease_seconds // 6

    def __bool__(self) -> bool:
        """Whether a request waits."""
        return bool(self._renewed)
