"""Ground truth: which requests a planted bug struck, and which of them read wrong KV. For selftest; no engine looks."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """What was planted in one deployment."""

    struck: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Request ids by the bug that was applied to them."""
    owners: dict[str, str] = field(default_factory=dict)
    """Whose KV a request got, by request id."""
    victims: set[str] = field(default_factory=set)
    """Bystanders whose blocks somebody else overwrote."""
    wrong: set[str] = field(default_factory=set)
    """Requests that computed on KV which was not their own: those whose outputs cannot be trusted."""

    def strike(self, bug: str, request_id: str) -> None:
        """A bug was applied."""
        self.struck[bug].add(request_id)

    def read_wrong(self, request_id: str) -> None:
        """A request has read wrong KV."""
        self.wrong.add(request_id)

    @property
    def planted(self) -> set[str]:
        """Every request to which anything was done."""
        return set().union(*self.struck.values()) if self.struck else set()
