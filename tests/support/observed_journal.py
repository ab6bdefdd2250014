"""A growing history that is also the observer of the deployment."""

from typing import Any

from harness.history import Ended, Entry, Sent


class Journal(list[Entry]):
    """``order`` lists the types of the entries and the observer's readings (scenario, phase, label), as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[Any] = []

    def record(self, entry: Entry) -> None:
        self.append(entry)
        self.order.append(type(entry).__name__)

    async def read(self, *, scenario: str, phase: str, label: str) -> None:
        self.order.append((scenario, phase, label))

    def disturbed(self) -> None:
        self.order.append("disturbed")

    def ends(self) -> dict[str, Ended]:
        return {entry.request_id: entry for entry in self if isinstance(entry, Ended)}

    def sents(self) -> list[Sent]:
        return [entry for entry in self if isinstance(entry, Sent)]
