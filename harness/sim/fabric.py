"""How servers reach each other's KV memory: here in the same process, over sockets in ``sockets.py``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from harness.sim.blocks import Page
from harness.sim.sequence import Sequence


class Address(NamedTuple):
    """Where a connector's side channel is, and which engine must answer there."""

    engine_id: str
    host: str
    port: int

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Address":
        """The address that ``kv_transfer_params`` name; a port that is no number becomes -1, which no server has."""
        port = params.get("remote_port")
        numbered = port if isinstance(port, int) else -1
        return cls(str(params.get("remote_engine_id")), str(params.get("remote_host")), numbered)


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a server's KV memory, which the handshake tells."""

    block_size: int
    """Tokens."""
    num_blocks: int
    block_bytes: int


class Peer(Protocol):
    """P's connector, as far as one pull by D uses it."""

    @property
    def layout(self) -> Layout:
        """The form of P's memory."""

    def page(self, block: int) -> Page:
        """The contents of one of the blocks that the pull named."""

    def still_holds(self, sequence: Sequence) -> bool:
        """Ground truth: whether the request's parameters name the blocks that P holds for it."""

    def notify(self, request_id: str) -> bool:
        """Tell P that the blocks were read; False if it cannot be told."""

    def lapse(self, request_id: str, pages: Mapping[int, Page]) -> bool:
        """End the lease and overwrite blocks, for a planted bug; False, and nothing, if P has no such lease."""


class Member(Peer, Protocol):
    """A connector that joins a fabric."""

    def renew(self, request_id: str) -> None:
        """Renew a lease."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of the attempt to read P's blocks."""

    peer: Peer | None
    """None if the handshake failed."""
    lost: bool = False
    """Whether P did not answer after the handshake: the connection broke, or the time limit passed."""


class Fabric(Protocol):
    """One server's way to all others."""

    def join(self, engine_id: str, member: Member) -> Address:
        """Let others reach this connector; returns where."""

    def reach(self, address: Address, request_id: str, blocks: list[int], done: Callable[[Reached], None]) -> None:
        """Read blocks that P holds for a request, and call ``done`` with them: at once, or later in the event loop."""

    def release(self, address: Address, request_id: str) -> None:
        """Notify P that its blocks are not needed."""

    def renew(self, address: Address, request_id: str) -> None:
        """Renew a request's lease on P, if P can be reached."""


class SharedMemory:
    """The fabric of servers that share one process."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[Address, Member]] = {}

    def join(self, engine_id: str, member: Member) -> Address:
        """Register a connector; the address only looks like one."""
        address = Address(engine_id, "127.0.0.1", 5600 + len(self._members))
        self._members[engine_id] = address, member
        return address

    def reach(
        self,
        address: Address,
        request_id: str,  # noqa: ARG002 - only a process elsewhere must be told
        blocks: list[int],  # noqa: ARG002 - only a process elsewhere must be told
        done: Callable[[Reached], None],
    ) -> None:
        """Hand out the connector itself."""
        known, member = self._members.get(address.engine_id, (None, None))
        done(Reached(member if known == address else None))

    def release(self, address: Address, request_id: str) -> None:
        """Notify the connector."""
        if address.engine_id in self._members:
            self._members[address.engine_id][1].notify(request_id)

    def renew(self, address: Address, request_id: str) -> None:
        """Renew the connector's lease."""
        if address.engine_id in self._members:
            self._members[address.engine_id][1].renew(request_id)
