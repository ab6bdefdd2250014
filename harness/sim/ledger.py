"""Ground truth about planted bugs, for tests of the checkers; no engine reads it."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """The effects of the planted bugs in one deployment."""

    struck: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """For each bug, the ids of the requests that it struck."""
    owners: dict[str, str] = field(default_factory=dict)
    """For each request that got another request's KV, the id of that other request."""
    victims: set[str] = field(default_factory=set)
    """Ids of requests whose blocks another request overwrote."""
    wrong: set[str] = field(default_factory=set)
    """Ids of requests that computed on wrong KV, so that their outputs may be wrong."""

    def strike(self, bug: str, request_id: str) -> None:
        """Record that a bug struck a request."""
        self.struck[bug].add(request_id)

    def read_wrong(self, request_id: str) -> None:
        """Record that a request has read wrong KV."""
        self.wrong.add(request_id)

    @property
    def planted(self) -> set[str]:
        """Ids of all requests that any bug struck."""
        return set().union(*self.struck.values()) if self.struck else set()
