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
    reload_bytes: int = 0
    """Bytes that one of the requests may read back from the offload tier each time it is preempted, at most. Not a
    counter: of two expectations together it is the larger."""
    largest_store: int = 0
    """Bytes that one of the requests may give the offload tier, at most. Of two expectations it is the larger."""
    counted_again: int = 0
    """Tokens that may be counted under two sources, at most. Of two expectations together it is the sum."""
    at_least: frozenset[str] = frozenset()
    """Counters that the release counts more than once where a request has to wait: only their lower bounds bind."""
    unpredictable: Mapping[str, str] = field(default_factory=dict)
    """Why a counter cannot be predicted, by its name."""
    bounded: Mapping[str, str] = field(default_factory=dict)
    """Why a counter's bounds lie apart, by its name."""

    def of(self, counter: str) -> Bounds | None:
        """The counter's bounds; None when it cannot be predicted, and :meth:`why` says why."""
        if counter in self.unpredictable:
            return None
        bounds: Bounds = getattr(self, counter)
        return bounds

    def why(self, counter: str) -> str:
        """Why the counter cannot be predicted, or not exactly; empty when it is exact."""
        return self.unpredictable.get(counter) or self.bounded.get(counter, "")

    def __add__(self, other: "ServerExpectation") -> "ServerExpectation":
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in PREDICTED}
        return ServerExpectation(
            **sums,
            reload_bytes=max(self.reload_bytes, other.reload_bytes),
            largest_store=max(self.largest_store, other.largest_store),
            counted_again=self.counted_again + other.counted_again,
            at_least=self.at_least | other.at_least,
            unpredictable={**other.unpredictable, **self.unpredictable},
            bounded={**other.bounded, **self.bounded},
        )

    def possibly(self) -> "ServerExpectation":
        """The same for a request of which nobody knows how far it came: anything from nothing to all of it."""
        widened: dict[str, Any] = {name: Bounds(0, getattr(self, name).high) for name in PREDICTED}
        return replace(self, **widened)

    def because(self, reason: str) -> "ServerExpectation":
        """The same, with the reason why its bounds lie apart where they do and none is given yet."""
        apart = {name: reason for name in PREDICTED if not getattr(self, name).exact}
        return replace(self, bounded={**apart, **self.bounded})


PREDICTED = tuple(item.name for item in fields(ServerExpectation) if item.default is NOTHING)
"""The counters that expectations have bounds for."""


def hull(expectations: Iterable[ServerExpectation]) -> ServerExpectation:
    """What admits whatever one of them admits."""
    first, *others = expectations
    if not others:
        return first
    every = (first, *others)
    spans: dict[str, Any] = {
        name: Bounds(min(getattr(e, name).low for e in every), max(getattr(e, name).high for e in every))
        for name in PREDICTED
    }
    return ServerExpectation(
        **spans,
        reload_bytes=max(e.reload_bytes for e in every),
        largest_store=max(e.largest_store for e in every),
        counted_again=max(e.counted_again for e in every),
        at_least=frozenset().union(*(e.at_least for e in every)),
        unpredictable={name: why for e in every for name, why in e.unpredictable.items()},
        bounded={name: why for e in every for name, why in e.bounded.items()},
    )


def unpredictable(reason: str, counters: Iterable[str] = PREDICTED) -> ServerExpectation:
    """No bounds for these counters, for one reason."""
    return ServerExpectation(unpredictable=dict.fromkeys(counters, reason))
