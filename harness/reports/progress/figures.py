"""The figures of a run so far, from what an observer is told. Draws nothing.

The event loop tells, and another thread may read at any time: what is read is replaced as a whole, or is a number.
Times of entries are only compared with each other, since the run may have another clock than who shows it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.history import (
    Ended,
    Entry,
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    Outcome,
    RunEnded,
    Sampled,
    Scraped,
    Sent,
)
from harness.observer import UP, PhasePlan, VerifiedSoFar
from harness.reports.progress.latency_bins import LatencyBins
from harness.reports.progress.sources import TokenSources

_RECENT_S = 5.0
"""The seconds over which recent rates are taken."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second."""

    requests: float
    tokens: float
    """Output tokens of the requests that ended."""


@dataclass(slots=True)
class Traffic:
    """The requests of one phase: counts, latencies, rates."""

    plan: PhasePlan | None
    began: float
    """On the clock of who shows it."""
    ttft: LatencyBins = field(default_factory=LatencyBins)
    e2e: LatencyBins = field(default_factory=LatencyBins)
    ended: int = 0
    """Requests that ended, background requests included."""
    tokens: int = 0
    _due: dict[str, float] = field(default_factory=dict)
    """When the requests in flight were due, on the run's clock."""
    _marks: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=64))
    """Time, requests and tokens, whenever rates were asked for."""

    @property
    def in_flight(self) -> int:
        """Requests that were sent and have not ended."""
        return len(self._due)

    def sent(self, entry: Sent) -> None:
        """A request was sent."""
        self._due[entry.request.request_id] = entry.intended_at

    def has_ended(self, entry: Ended) -> None:
        """A request ended."""
        due = self._due.pop(entry.request_id, None)
        if due is None:
            # It was sent in an earlier phase.
            return
        self.ended += 1
        self.tokens += entry.output_tokens
        if entry.outcome is Outcome.OK:
            self.e2e.add(entry.at - due)
            if (first := entry.first_token_at) is not None:
                self.ttft.add(first - due)

    def mean(self, now: float) -> Rates | None:
        """Rates since the phase began; None if no time has passed."""
        return _rates((self.began, 0, 0), (now, self.ended, self.tokens))

    def recent(self, now: float) -> Rates | None:
        """Rates of the last few seconds. To be asked for again and again, by one thread."""
        latest = (now, self.ended, self.tokens)
        while len(self._marks) > 1 and now - self._marks[1][0] >= _RECENT_S:
            self._marks.popleft()
        earliest = self._marks[0] if self._marks else (self.began, 0, 0)
        if not self._marks or now - self._marks[-1][0] >= _RECENT_S / 50:
            self._marks.append(latest)
        return _rates(earliest, latest)


def _rates(earlier: tuple[float, int, int], later: tuple[float, int, int]) -> Rates | None:
    seconds = later[0] - earlier[0]
    return Rates((later[1] - earlier[1]) / seconds, (later[2] - earlier[2]) / seconds) if seconds > 0 else None


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server as it was last read."""

    reading: Sampled
    sources: Mapping[str, float]
    """Prompt tokens by source since the phase began."""
    at: float = 0.0
    """When it was read, on the clock of who shows it."""


class Figures:
    """Everything that is known of a run so far beside the counts of its phase."""

    def __init__(self) -> None:
        self.traffic: Traffic | None = None
        self.servers: dict[str, ServerState] = {}
        self.states: dict[str, str] = {}
        """What was told of each server last, in the whole run: ``up``, or what is wrong with it."""
        self.faults: dict[str, tuple[float, str]] = {}
        """Faults at work: since when, on the clock of who shows them, and what they do."""
        self.died: tuple[str, ...] = ()
        self.so_far: VerifiedSoFar | None = None
        self._plan: PhasePlan | None = None
        self._planned: dict[str, str] = {}
        self._sources = TokenSources()

    def sending(self, plan: PhasePlan) -> None:
        """A phase of a run begins; :meth:`phase` follows. What was verified of an earlier load is forgotten."""
        self._plan = plan
        if plan.of_load:
            self.so_far = None

    def phase(self, now: float) -> None:
        """A phase begins; ``now``: on the clock of who shows it."""
        self.traffic, self._plan = Traffic(self._plan, now), None
        self.servers = {}

    def recorded(self, entry: Entry, now: Callable[[], float]) -> None:
        """The run's history has a new entry; ``now``: the clock of who shows it."""
        traffic = self.traffic
        # Nearly all entries are of these two kinds.
        if isinstance(entry, Sent):
            if traffic is not None:
                traffic.sent(entry)
        elif isinstance(entry, Ended):
            if traffic is not None:
                traffic.has_ended(entry)
        else:
            self._other(entry, now)

    def server(self, name: str, state: str) -> bool:
        """The state of a server; whether that is news. A server is taken to be up until it is known not to be."""
        before = self.states.get(name, UP)
        # A new mapping each time: another thread may be iterating over the old one.
        self.states = {**self.states, name: state}
        return state != before

    def _other(self, entry: Entry, now: Callable[[], float]) -> None:
        match entry:
            case Sampled():
                known = {**self.servers, entry.server: self._state(entry, now())}
                self.servers = {name: known[name] for name in self._sources.in_order(known)}
            case Scraped(label="before"):
                self._sources.scraped(entry)
            case FaultPlanned():
                self._planned[entry.fault] = entry.text
            case FaultBegan():
                self.faults = {**self.faults, entry.fault: (now(), self._planned.get(entry.fault, ""))}
            case FaultHealed():
                self.faults = {name: fault for name, fault in self.faults.items() if name != entry.fault}
            case RunEnded():
                self.died = tuple(one.name for one in entry.died)

    def _state(self, reading: Sampled, now: float) -> ServerState:
        if reading.cause and (before := self.servers.get(reading.server)):
            return ServerState(reading, before.sources, now)
        return ServerState(reading, self._sources.since(reading), now)
