"""Whether anybody else asks these servers: what they count while this harness asks nothing."""

from collections.abc import Iterator, Sequence

import aiohttp

from harness.clock import Clock
from harness.facts import Server
from harness.observe.counters import Counters, Delta
from harness.preflight.asking import Watch
from harness.preflight.item import Item, Level

LISTENS = 1.0
"""Seconds: a client that asks less often than that may be missed, and is seen by the run's own counting."""
_MOVING = ("prompt_tokens", "generation_tokens")


async def traffic(session: aiohttp.ClientSession, servers: Sequence[Server], clock: Clock) -> list[Item]:
    """Listen for a moment, less where something is seen at once."""
    watch = Watch(session, servers, clock)
    await watch.begin()
    since = await watch.until(lambda seen: any(map(_moved, seen)) or any(map(_busy, watch.last)), LISTENS)
    found = [item for parts in zip(servers, since, watch.last, strict=True) for item in _of(*parts)]
    return found or [Item("traffic", Level.OK, f"no other requests seen within {LISTENS:.0f} s")]


def _of(server: Server, since: Delta | None, now: Counters | None) -> Iterator[Item]:
    if since is None or now is None:
        yield Item("traffic", Level.UNKNOWN, f"{server.name}'s counters could not be read", "Check its /metrics")
    elif _moved(since) or _busy(now):
        tokens = since.of("prompt_tokens") or 0
        yield Item(
            "traffic",
            Level.UNKNOWN,
            f"{server.name} is asked by somebody else: while this harness asked nothing it counted {tokens:,.0f} "
            f"prompt tokens, with {now.running or 0:,.0f} requests running and {now.waiting or 0:,.0f} waiting",
            "Keep other clients and probes that generate away from it while a run goes: counters cannot be told apart",
        )


def _moved(since: Delta | None) -> bool:
    return since is not None and any(since.of(name) for name in _MOVING)


def _busy(now: Counters | None) -> bool:
    return now is not None and bool(now.running or now.waiting)
