"""Whether other clients use the servers: whether counters grow while the harness sends nothing."""

from collections.abc import Iterator, Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.observe.counters import Counters
from harness.observe.growth import Delta
from harness.preflight.counter_watch import CounterWatch
from harness.preflight.item import Item, Level

WATCH_SECONDS = 1.0
"""How long to watch. A client that sends less often may be missed here, but the run's own counts show it."""
_TOKENS = ("prompt_tokens", "generation_tokens")


async def check_traffic(session: aiohttp.ClientSession, servers: Sequence[Server], clock: Clock) -> list[Item]:
    """Watch the counters for a second, or until they show a request of another client."""
    watch = CounterWatch(session, servers, clock)
    await watch.begin()
    growth = await watch.until(lambda grown: any(map(_grew, grown)) or any(map(_busy, watch.last)), WATCH_SECONDS)
    found = [item for parts in zip(servers, growth, watch.last, strict=True) for item in _findings(*parts)]
    return found or [Item("traffic", Level.OK, f"No requests of other clients within {WATCH_SECONDS:.0f} s")]


def _findings(server: Server, grown: Delta | None, now: Counters | None) -> Iterator[Item]:
    if grown is None or now is None:
        yield Item(
            "traffic", Level.UNKNOWN, f"The counters of {server.name} could not be read", "Check the server's /metrics"
        )
    elif _grew(grown) or _busy(now):
        tokens = grown.of("prompt_tokens") or 0
        yield Item(
            "traffic",
            Level.UNKNOWN,
            f"Another client uses {server.name}: while the harness sent nothing, the server counted {tokens:,.0f} "
            f"prompt tokens, with {now.running or 0:,.0f} requests running and {now.waiting or 0:,.0f} waiting",
            "Keep other clients, and health probes that generate tokens, away from the server during a run: its "
            "counters cannot separate their requests",
        )


def _grew(grown: Delta | None) -> bool:
    return grown is not None and any(grown.of(name) for name in _TOKENS)


def _busy(now: Counters | None) -> bool:
    return now is not None and bool(now.running or now.waiting)
