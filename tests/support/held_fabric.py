"""A fabric whose answers the test gives: what a decode server asks of P waits until then."""

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.sim.fabric import Address, Member, Reached

Asked = tuple[Address, str, list[int], Callable[[Reached], None]]


@dataclass
class HeldFabric:
    asked: list[Asked] = field(default_factory=list)
    renewed: list[tuple[Address, str]] = field(default_factory=list)
    released: list[tuple[Address, str]] = field(default_factory=list)

    def join(self, engine_id: str, member: Member) -> Address:
        assert member
        return Address(engine_id, "here", 1)

    def reach(self, address: Address, request_id: str, blocks: list[int], done: Callable[[Reached], None]) -> None:
        self.asked.append((address, request_id, blocks, done))

    def release(self, address: Address, request_id: str) -> None:
        self.released.append((address, request_id))

    def renew(self, address: Address, request_id: str) -> None:
        self.renewed.append((address, request_id))

    def answer(self, reached: Reached) -> None:
        """Answer the oldest read."""
        self.asked.pop(0)[3](reached)
