"""Waits until a deployment has settled, so that its counters cover all requests that were sent to it.

Counters change with the engine's steps. Most have changed before the client has its answer. The offload tier's stores
finish some steps later, and P keeps blocks until D's notification or the end of the lease. A fixed pause would be
unreliable and mostly too long. A deployment has settled when:

1. no request is running or waiting,
2. no more of the block pool is held than before (blocks that are only cached are not held),
3. no transfer to or from the offload tier is in flight, and
4. three readings in a row agree on every counter. One reading is not enough, because rules 1 to 3 also hold for a
   moment between an answer's last token and the step that queues its last store.

For the first reading of a run, no block may be held. Blocks that are still held at the deadline were leaked before the
run: the reading counts as settled, and the share of held blocks becomes the baseline for later readings.

Waiting ends early if a server is gone, or if a needed gauge is missing or has an impossible value.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.clock import Clock
from harness.history import Scraped, ScrapeFailed
from harness.observe.counters import SOURCES, Counters, read_counters

Readings = Mapping[str, Scraped | ScrapeFailed]
"""The last reading of each server, by server name."""
Reader = Callable[[], Awaitable[Readings]]

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.25
"""Seconds between readings; short at first, since most deployments settle at once."""
AGREEING = 3
"""Readings in a row that must agree."""
DEADLINE = 45.0
"""Seconds; longer than NIXL's lease of 30 s (``kv_lease_duration``), after which P frees blocks that D never read."""
GIVE_UP_ON_FAILURES = 5.0
"""Seconds without a complete reading after which waiting ends, because a server is gone."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Settled:
    """The last readings taken, and whether the deployment had settled."""

    readings: Readings
    because: Mapping[str, str]
    """For each server that had not settled, why not."""
    seconds: float
    """Seconds from the first reading to the last."""
    holding: bool = False
    """Whether held blocks were the only reason why the deployment had not settled by the deadline."""

    @property
    def settled(self) -> bool:
        """Whether every server had settled."""
        return not self.because

    @property
    def counters(self) -> dict[str, Counters]:
        """Counters by server, of the servers that could be read."""
        return {name: read_counters(r) for name, r in self.readings.items() if isinstance(r, Scraped)}


async def settle(
    read: Reader, clock: Clock, *, baseline: Mapping[str, float] | None = None, deadline: float = DEADLINE
) -> Settled:
    """Poll until the deployment has settled, or until ``deadline`` seconds have passed.

    ``baseline`` is each server's settled KV usage, 0 to 1; None for the first reading of a run.
    """
    watch = _Watch(baseline)
    started = last_complete = clock.now()
    pause = FIRST_PAUSE
    while True:
        readings = await read()
        because = watch.why_not_settled(readings)
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


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why one server has not settled."""

    text: str
    permanent: bool = False
    """Whether waiting longer cannot help."""


@dataclass(slots=True)
class _Watch:
    """The first and the last readings, and the obstacles that they show."""

    baseline: Mapping[str, float] | None
    first: dict[str, Counters] = field(default_factory=dict)
    last: dict[str, Counters] = field(default_factory=dict)
    repeats: int = 0
    """How many readings in a row agree with the last one, including it."""
    moving: set[str] = field(default_factory=set)
    """Servers whose counters changed in the latest reading that changed at all."""
    because: dict[str, str] = field(default_factory=dict)
    """Obstacles by server in the last reading."""
    failed: bool = False
    permanent: int = 0
    """How many readings in a row had a permanent obstacle."""

    @property
    def hopeless(self) -> bool:
        """Whether a gauge could not be read several times in a row, so that waiting longer cannot help."""
        return self.permanent >= AGREEING

    @property
    def only_holds_blocks(self) -> bool:
        """Whether held blocks are the only reason why the deployment has not settled."""
        idle = (not (one.running or one.waiting or one.offload_usage) for one in self.last.values())
        return self.repeats >= AGREEING and not self.failed and not self.permanent and all(idle)

    def why_not_settled(self, readings: Readings) -> dict[str, str]:
        """Take in new readings; return why the deployment has not settled, by server."""
        failures = {name: r.cause for name, r in readings.items() if isinstance(r, ScrapeFailed)}
        counters = {name: read_counters(r) for name, r in readings.items() if isinstance(r, Scraped)}
        self.failed = bool(failures)
        self.repeats = self.repeats + 1 if counters == self.last and not failures else 1
        self.moving = {name for name in counters if counters[name] != self.last.get(name)} or self.moving
        self.last = counters
        self.first = counters | self.first
        baseline = self.baseline or {}
        found = {name: tuple(_obstacles(one, baseline.get(name, 0.0))) for name, one in counters.items()}
        self.permanent = self.permanent + 1 if any(one.permanent for each in found.values() for one in each) else 0
        self.because = {name: ", ".join(one.text for one in each) for name, each in found.items() if each}
        if failures or self.because:
            return failures | self.because
        return {} if self.repeats >= AGREEING else dict.fromkeys(sorted(self.moving), "its counters still change")

    def with_traffic(self, because: Mapping[str, str]) -> dict[str, str]:
        """Add to the reasons how many prompt tokens each server counted while this run sent nothing."""
        return {name: f"{why}{self._traffic(name)}" for name, why in because.items()}

    def _traffic(self, name: str) -> str:
        counted = self._counted(name)
        if not counted:
            return ""
        return (
            f"; it counted {counted:,} prompt tokens while this run had no request in flight: other clients use this "
            "server, or it still serves requests that this run has given up"
        )

    def _counted(self, name: str) -> float:
        first, last = self.first.get(name), self.last.get(name)
        if first is None or last is None or first.prompt_tokens is None or last.prompt_tokens is None:
            return 0
        return max(last.prompt_tokens - first.prompt_tokens, 0)


_NEEDED = ("running", "waiting", "kv_usage")
_GAUGES = (*_NEEDED, "offload_usage")


def _obstacles(counters: Counters, baseline: float) -> Iterator[_Obstacle]:
    unusable = [counters.unusable[name] for name in _GAUGES if name in counters.unusable]
    if unusable:
        yield _Obstacle(f"{unusable[0]}, so whether it has settled cannot be seen", permanent=True)
        return
    if counters.running is None or counters.waiting is None or counters.kv_usage is None:
        missing = ", ".join(SOURCES[name].sample for name in _NEEDED if getattr(counters, name) is None)
        yield _Obstacle(f"it exposes no {missing}, so whether it has settled cannot be seen", permanent=True)
        return
    if counters.running:
        yield _Obstacle(f"{counters.running:,} requests are still running")
    if counters.waiting:
        yield _Obstacle(f"{counters.waiting:,} requests are still waiting")
    if counters.kv_usage > baseline + _ROUNDING:
        yield _Obstacle(f"{counters.kv_usage:.2%} of its KV blocks are still held ({baseline:.2%} before)")
    if counters.offload_usage:
        yield _Obstacle(f"transfers pin {counters.offload_usage:.2%} of its offload tier")
