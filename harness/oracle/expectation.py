"""What one server's counters must grow by; expectations of requests add up to that of a phase."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from harness.verdict import Bounds

NOTHING = Bounds(0, 0)


@dataclass(frozen=True, slots=True)
class ServerExpectation:
    """Bounds for each counter, named as in :class:`harness.observe.counters.Counters`; tokens, bytes, events.

    A counter named in ``unpredictable`` has no bounds, whatever its field says: read it through :meth:`of`.
    """

    prompt_tokens: Bounds = NOTHING
    local_compute: Bounds = NOTHING
    local_cache_hit: Bounds = NOTHING
    external_kv_transfer: Bounds = NOTHING
    generation_tokens: Bounds = NOTHING
    prefix_queries: Bounds = NOTHING
    prefix_hits: Bounds = NOTHING
    external_queries: Bounds = NOTHING
    external_hits: Bounds = NOTHING
    nixl_bytes: Bounds = NOTHING
    nixl_transfers: Bounds = NOTHING
    offload_load_bytes: Bounds = NOTHING
    offload_store_bytes: Bounds = NOTHING
    unpredictable: Mapping[str, str] = field(default_factory=dict)
    """Why a counter cannot be predicted, by its name."""

    def of(self, counter: str) -> Bounds | None:
        """The counter's bounds; None when it cannot be predicted, and :meth:`why` says why."""
        if counter in self.unpredictable:
            return None
        bounds: Bounds = getattr(self, counter)
        return bounds

    def why(self, counter: str) -> str:
        """Why the counter cannot be predicted; empty when it can."""
        return self.unpredictable.get(counter, "")

    def __add__(self, other: "ServerExpectation") -> "ServerExpectation":
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in PREDICTED}
        return ServerExpectation(**sums, unpredictable={**other.unpredictable, **self.unpredictable})

    def possibly(self) -> "ServerExpectation":
        """The same for a request of which nobody knows how far it came: anything from nothing to all of it."""
        widened: dict[str, Any] = {name: Bounds(0, getattr(self, name).high) for name in PREDICTED}
        return replace(self, **widened)


PREDICTED = tuple(item.name for item in fields(ServerExpectation) if item.name != "unpredictable")
"""The counters that expectations have bounds for."""


def unpredictable(reason: str, counters: Iterable[str] = PREDICTED) -> ServerExpectation:
    """No bounds for these counters, for one reason."""
    return ServerExpectation(unpredictable=dict.fromkeys(counters, reason))
