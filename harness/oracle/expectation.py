"""By how much one server's counters must grow. The expectation of a phase is the sum over its requests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from harness.verdict import Bounds

NOTHING = Bounds(0, 0)


@dataclass(frozen=True, slots=True)
class ServerExpectation:
    """Bounds for each counter, named as in :class:`harness.observe.counters.Counters`: tokens, bytes or events.

    A counter named in ``unpredictable`` has no bounds, whatever its field holds: read counters through :meth:`of`.
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
    """Upper bound on the bytes that any one request may read back from the offload tier each time it is preempted. This
    is no counter: the sum of two expectations has the larger value."""
    largest_store: int = 0
    """Upper bound on the bytes that any one request may store in the offload tier; a sum has the larger value."""
    counted_again: int = 0
    """Upper bound on the tokens that are counted under two sources."""
    at_least: frozenset[str] = frozenset()
    """Counters that the release counts more than once when a request has to wait: only their lower bounds hold."""
    unpredictable: Mapping[str, str] = field(default_factory=dict)
    """Why a counter cannot be predicted, by the counter's name."""
    bounded: Mapping[str, str] = field(default_factory=dict)
    """Why a counter's lower and upper bounds differ, by the counter's name."""

    def of(self, counter: str) -> Bounds | None:
        """The counter's bounds; None if it cannot be predicted, for the reason that :meth:`why` gives."""
        if counter in self.unpredictable:
            return None
        bounds: Bounds = getattr(self, counter)
        return bounds

    def why(self, counter: str) -> str:
        """Why the counter is not predicted exactly, or not at all; empty if it is exact."""
        return self.unpredictable.get(counter) or self.bounded.get(counter, "")

    def __add__(self, other: "ServerExpectation") -> "ServerExpectation":
        return summed((self, other))

    def possibly(self) -> "ServerExpectation":
        """The expectation of a request that may have stopped at any point: between nothing and all of it."""
        widened: dict[str, Any] = {name: Bounds(0, getattr(self, name).high) for name in PREDICTED}
        return replace(self, **widened)

    @property
    def exact(self) -> bool:
        """Whether no counter has bounds that differ."""
        return all(bounds.exact for bounds in _BOUNDS(self))

    def because(self, reason: str) -> "ServerExpectation":
        """A copy in which every counter with differing bounds has a reason; reasons given before are kept."""
        apart = {name: reason for name in PREDICTED if not getattr(self, name).exact}
        return replace(self, bounded={**apart, **self.bounded}) if apart else self


PREDICTED = tuple(item.name for item in fields(ServerExpectation) if item.default is NOTHING)
"""The counters for which expectations have bounds."""


_BOUNDS = attrgetter(*PREDICTED)


def summed(expectations: Iterable[ServerExpectation]) -> ServerExpectation:
    """The sum of these expectations; of several reasons for a counter, the first is kept."""
    low, high = [0] * len(PREDICTED), [0] * len(PREDICTED)
    rest = _Rest()
    for one in expectations:
        for place, bounds in enumerate(_BOUNDS(one)):
            low[place] += bounds.low
            high[place] += bounds.high
        rest.add(one)
    return rest.beside(dict(zip(PREDICTED, map(Bounds, low, high), strict=True)))


@dataclass(slots=True)
class _Rest:
    """The limits and reasons of a sum."""

    reload_bytes: int = 0
    largest_store: int = 0
    counted_again: int = 0
    at_least: set[str] = field(default_factory=set)
    unpredictable: dict[str, str] = field(default_factory=dict)
    bounded: dict[str, str] = field(default_factory=dict)

    def add(self, one: ServerExpectation) -> None:
        self.reload_bytes = max(self.reload_bytes, one.reload_bytes)
        self.largest_store = max(self.largest_store, one.largest_store)
        self.counted_again += one.counted_again
        self.at_least |= one.at_least
        for reasons, more in ((self.unpredictable, one.unpredictable), (self.bounded, one.bounded)):
            for name, why in more.items():
                reasons.setdefault(name, why)

    def beside(self, counters: Any) -> ServerExpectation:
        rest = {item.name: getattr(self, item.name) for item in fields(self)}
        return ServerExpectation(**counters, **rest | {"at_least": frozenset(self.at_least)})


def hull(expectations: Iterable[ServerExpectation]) -> ServerExpectation:
    """The narrowest expectation that includes all of these expectations."""
    every = tuple(expectations)
    if len(every) == 1:
        return every[0]
    spans = {
        name: Bounds(min(getattr(e, name).low for e in every), max(getattr(e, name).high for e in every))
        for name in PREDICTED
    }
    return _combined(every, spans, max(e.counted_again for e in every))


def _combined(every: Sequence[ServerExpectation], counters: Any, counted_again: int) -> ServerExpectation:
    """An expectation with these counters and the limits and reasons of all; the last reason for a counter is kept."""
    return ServerExpectation(
        **counters,
        reload_bytes=max(e.reload_bytes for e in every),
        largest_store=max(e.largest_store for e in every),
        counted_again=counted_again,
        at_least=frozenset().union(*(e.at_least for e in every)),
        unpredictable={name: why for e in every for name, why in e.unpredictable.items()},
        bounded={name: why for e in every for name, why in e.bounded.items()},
    )


def unpredictable(reason: str, counters: Iterable[str] = PREDICTED) -> ServerExpectation:
    """An expectation without bounds for these counters, for one reason."""
    return ServerExpectation(unpredictable=dict.fromkeys(counters, reason))
