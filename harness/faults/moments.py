"""The moment at which a fault is struck: after a time, after a number of requests, or in a state that was observed.

The state is polled, never waited for with a sleep: a fault that is meant to hit a transfer must not depend on how fast
the machine is. Between the reading and the fault lie some milliseconds, in which a request may have gone on.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.facts import Role, Server
from harness.faults.site import Site
from harness.run.runner import PhaseRun

POLL_S = 0.02
"""Seconds between two readings of the gauges. A transfer of the CPU pair takes tens of milliseconds."""


class State(StrEnum):
    """A state of the deployment, read from the servers' gauges."""

    ADMITTED = "admitted"
    """A request runs on the target, or holds KV blocks there; on any server, if the target is none."""
    TRANSFERRING = "transferring"
    """A request waits on a decode server for its KV, or for its turn, while a prefill server holds blocks."""
    PREFILLED = "prefilled"
    """A prefill server holds blocks that decode has not read, and has no request to work on: while decode is stopped,
    all requests come to this."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a fault is struck. All conditions must have come, in this order."""

    after: float = 0.0
    """Seconds from the beginning of the load."""
    ended: int = 0
    """Requests of the load that have ended."""
    state: State | None = None

    @property
    def text(self) -> str:
        """As a clause for the fault's description; empty if only the time matters."""
        parts = [f"after {self.ended:,} requests have ended"] if self.ended else []
        return ", ".join([*parts, *([_WORDS[self.state]] if self.state else [])])

    async def come(self, site: Site, target: str, load: PhaseRun) -> str:
        """Return when it has come, with what was observed; never, if it does not come."""
        await site.clock.sleep(self.after)
        while load.ended < self.ended:
            await site.clock.sleep(POLL_S)
        seen = [f"{load.ended:,} requests had ended"] if self.ended else []
        if self.state is not None:
            seen.append(await _until(self.state, site, target))
        return ", ".join(seen)


_WORDS = {
    State.ADMITTED: "when a server has admitted a request",
    State.TRANSFERRING: "when a KV transfer is under way",
    State.PREFILLED: "when prefill waits for decode to read blocks",
}


async def _until(state: State, site: Site, target: str) -> str:
    while not (seen := await _LOOKS[state](site, target)):
        await site.clock.sleep(POLL_S)
    return seen


async def _admitted(site: Site, target: str) -> str:
    for server in _meant(site, target, tuple(Role)):
        if running := await site.value(server.name, "running"):
            return f"{server.name} had {running:g} running requests"
        # A prefill server has done its part within milliseconds, but holds the blocks until decode has read them.
        if held := await site.value(server.name, "kv_usage"):
            return f"{server.name} held {held:.1%} of its KV for requests"
    return ""


async def _transferring(site: Site, target: str) -> str:
    for decode in _meant(site, target, (Role.DECODE,)):
        waiting = await site.value(decode.name, "waiting")
        if not waiting:
            continue
        for prefill in _meant(site, target, (Role.PREFILL,)):
            if held := await site.value(prefill.name, "kv_usage"):
                return f"{decode.name} had {waiting:g} waiting requests, and {prefill.name} held {held:.1%} of its KV"
    return ""


async def _prefilled(site: Site, target: str) -> str:
    for prefill in _meant(site, target, (Role.PREFILL,)):
        # One reading, since a request may be admitted between two.
        gauges = {} if site.values is None else await site.values(prefill.name)
        held = gauges.get("kv_usage")
        if held and gauges.get("running") == gauges.get("waiting") == 0:
            return f"{prefill.name} held {held:.1%} of its KV for decode, and no request ran or waited there"
    return ""


_LOOKS: Mapping[State, Callable[[Site, str], Awaitable[str]]] = {
    State.ADMITTED: _admitted,
    State.TRANSFERRING: _transferring,
    State.PREFILLED: _prefilled,
}


def _meant(site: Site, target: str, roles: tuple[Role, ...]) -> Iterator[Server]:
    """The target, if it is a server of one of these roles, else all servers of the roles."""
    servers = [one for one in site.deployment.servers if one.role in roles]
    named = [one for one in servers if one.name == target]
    yield from named or servers
