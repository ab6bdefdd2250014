"""When a deployment has come to rest, so that its counters say everything about what was asked of it.

Counters move with the engine's steps. Most are there before the client has its answer; not so the offload tier's
stores, which finish steps later, and P's blocks, which it keeps until D's notification or the end of the lease.
A fixed pause is neither enough nor needed. Rest is seen:

1. no request is running or waiting,
2. no more of the block pool is held than before (blocks that are only cached are not held),
3. no transfer to or from the offload tier is in flight, and
4. three readings in a row agree on every counter. One alone proves nothing: between an answer's last token and the
   step that queues its last store, rules 1 to 3 hold for a moment.

The first reading of a run has no usage to compare with. It waits for 0, and takes what the pool rests at when the
deadline comes: blocks that somebody else leaked earlier are not this run's.

Waiting ends before the deadline where it is in vain: a gauge that rests are told by is missing, or exposes a value that
means nothing.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from harness.clock import Clock
from harness.history import Scraped, ScrapeFailed
from harness.observe.counters import SOURCES, Counters, read_counters

Readings = Mapping[str, Scraped | ScrapeFailed]
"""By server name."""
Reader = Callable[[], Awaitable[Readings]]

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.25
"""Seconds between readings: short at first, since most deployments rest at once."""
AGREEING = 3
DEADLINE = 45.0
"""Seconds. A lost notification shows when NIXL's lease ends, 30 s after the request (``kv_lease_duration``)."""
GIVE_UP_ON_FAILURES = 5.0
"""Seconds without one complete reading after which a server counts as gone."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Settled:
    """The last readings taken, and whether the deployment was at rest."""

    readings: Readings
    because: Mapping[str, str]
    """Why not, by server; empty when all rest."""
    seconds: float
    holding: bool = False
    """Not at rest, and nothing but blocks that somebody still holds keeps it from that, to the deadline."""

    @property
    def settled(self) -> bool:
        """Whether every server was seen at rest."""
        return not self.because

    @property
    def counters(self) -> dict[str, Counters]:
        """The counters of every server that could be read."""
        return {name: read_counters(r) for name, r in self.readings.items() if isinstance(r, Scraped)}


async def settle(
    read: Reader, clock: Clock, *, baseline: Mapping[str, float] | None = None, deadline: float = DEADLINE
) -> Settled:
    """Poll until the deployment rests, or until ``deadline`` seconds have passed.

    ``baseline``: KV usage at rest by server, 0 to 1; None for the first reading of a run.
    """
    watch = _Watch(baseline)
    started = last_complete = clock.now()
    pause = FIRST_PAUSE
    while True:
        readings = await read()
        because = watch.why_not(readings)
        now = clock.now()
        if not watch.failed:
            last_complete = now
        expired = now - started >= deadline
        if expired and baseline is None and watch.only_holds_blocks:
            because = {}
        if not because or expired or watch.hopeless or now - last_complete >= GIVE_UP_ON_FAILURES:
            if expired and because:
                because = watch.with_traffic(because)
            return Settled(readings, because, now - started, expired and bool(because) and watch.only_holds_blocks)
        pause = min(pause * 1.5, LONGEST_PAUSE) if watch.because else FIRST_PAUSE
        await clock.sleep(min(pause, started + deadline - now))


class _Wait(Enum):
    """What waiting longer can do about an unrest."""

    HELPS = "helps"
    IS_IN_VAIN = "is in vain"


@dataclass(frozen=True, slots=True)
class _Unrest:
    """What keeps one server from being at rest."""

    text: str
    wait: _Wait = _Wait.HELPS


@dataclass(slots=True)
class _Watch:
    """Readings so far, as far as they matter: the first and the last, and how often that was repeated."""

    baseline: Mapping[str, float] | None
    first: dict[str, Counters] = field(default_factory=dict)
    last: dict[str, Counters] = field(default_factory=dict)
    repeats: int = 0
    moving: set[str] = field(default_factory=set)
    """Servers whose counters differed when any last did."""
    because: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    in_vain: int = 0
    """How many readings in a row showed what waiting does not mend."""

    @property
    def hopeless(self) -> bool:
        """Whether a gauge cannot be read and will not be, however the counters beside it move."""
        return self.in_vain >= AGREEING

    @property
    def only_holds_blocks(self) -> bool:
        """Whether all is at rest, save that the block pool is not empty."""
        idle = (not (one.running or one.waiting or one.offload_usage) for one in self.last.values())
        return self.repeats >= AGREEING and not self.failed and not self.in_vain and all(idle)

    def why_not(self, readings: Readings) -> dict[str, str]:
        failures = {name: r.cause for name, r in readings.items() if isinstance(r, ScrapeFailed)}
        counters = {name: read_counters(r) for name, r in readings.items() if isinstance(r, Scraped)}
        self.failed = bool(failures)
        self.repeats = self.repeats + 1 if counters == self.last and not failures else 1
        self.moving = {name for name in counters if counters[name] != self.last.get(name)} or self.moving
        self.last = counters
        self.first = counters | self.first
        baseline = self.baseline or {}
        unrest = {name: tuple(_unrest(one, baseline.get(name, 0.0))) for name, one in counters.items()}
        self.in_vain = self.in_vain + 1 if any(_in_vain(found) for found in unrest.values()) else 0
        self.because = {name: ", ".join(one.text for one in found) for name, found in unrest.items() if found}
        if failures or self.because:
            return failures | self.because
        return {} if self.repeats >= AGREEING else dict.fromkeys(sorted(self.moving), "its counters still move")

    def with_traffic(self, because: Mapping[str, str]) -> dict[str, str]:
        """The same reasons, with what each server was asked while this run sent nothing."""
        return {name: f"{why}{self._traffic(name)}" for name, why in because.items()}

    def _traffic(self, name: str) -> str:
        counted = self._counted(name)
        if not counted:
            return ""
        return (
            f"; it counted {counted:,} prompt tokens while this run had nothing in flight: somebody else asks this "
            "server, or it still serves requests that were given up"
        )

    def _counted(self, name: str) -> float:
        first, last = self.first.get(name), self.last.get(name)
        if first is None or last is None or first.prompt_tokens is None or last.prompt_tokens is None:
            return 0
        return max(last.prompt_tokens - first.prompt_tokens, 0)


def _in_vain(found: tuple[_Unrest, ...]) -> bool:
    return any(one.wait is _Wait.IS_IN_VAIN for one in found)


_NEEDED = ("running", "waiting", "kv_usage")
_GAUGES = (*_NEEDED, "offload_usage")


def _unrest(counters: Counters, baseline: float) -> Iterator[_Unrest]:
    nonsense = [counters.unusable[name] for name in _GAUGES if name in counters.unusable]
    if nonsense:
        yield _Unrest(f"{nonsense[0]}, so whether it is at rest is not known", _Wait.IS_IN_VAIN)
        return
    if counters.running is None or counters.waiting is None or counters.kv_usage is None:
        missing = ", ".join(SOURCES[name].sample for name in _NEEDED if getattr(counters, name) is None)
        yield _Unrest(f"it exposes no {missing}, so whether it is at rest is not known", _Wait.IS_IN_VAIN)
        return
    if counters.running:
        yield _Unrest(f"{counters.running:,} requests are still running")
    if counters.waiting:
        yield _Unrest(f"{counters.waiting:,} requests are still waiting")
    if counters.kv_usage > baseline + _ROUNDING:
        yield _Unrest(f"{counters.kv_usage:.2%} of its KV blocks are still held ({baseline:.2%} at rest before)")
    if counters.offload_usage:
        yield _Unrest(f"transfers pin {counters.offload_usage:.2%} of its offload tier")
