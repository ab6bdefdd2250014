"""What the probes read of the offload tiers: a probe that the tier was not read for has said nothing about it."""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.facts import Deployment, Role
from harness.history import History, Outcome
from harness.observe.counters import delta, read_counters
from harness.scenario import Route

_ROLES = {Route.DECODE: Role.DECODE, Route.PREFILL: Role.PREFILL}


@dataclass(frozen=True, slots=True)
class TierRead:
    """The tiers of one route's servers."""

    route: Route
    restored: int = 0
    """Tokens, from vllm:external_prefix_cache_hits: no connector but this answers without transfer parameters."""
    known: bool = False
    """Whether the counters could be read."""
    why_not: str = ""
    """Why nothing was asked; empty where something was."""


def tiers_read(deployment: Deployment, history: History) -> tuple[TierRead, ...]:
    """One for each route whose prefix caches were to be emptied."""
    resets = [o for o in history.operations() if o.request.resets]
    routes = dict.fromkeys(o.request.route for o in resets)
    failed = {o.request.route: o.ended.cause for o in reversed(resets) if o.outcome is not Outcome.OK}
    return tuple(
        TierRead(route, why_not=f"its prefix cache could not be emptied: {failed[route]}")
        if route in failed
        else _read(deployment, history, route)
        for route in routes
    )


def _read(deployment: Deployment, history: History, route: Route) -> TierRead:
    hits = list(_hits(deployment, history, route))
    known = [value for value in hits if value is not None]
    return TierRead(route, int(sum(known)), known=bool(known) and len(known) == len(hits))


def _hits(deployment: Deployment, history: History, route: Route) -> Iterator[float | None]:
    for scenario in dict.fromkeys(o.sent.scenario for o in history.operations() if o.request.resets):
        before, after = (
            history.scrapes(scenario=scenario, phase=f"probe-{route}-tier", label=f"watched-{when}")
            for when in ("before", "after")
        )
        for server in deployment.of(_ROLES[route]):
            if server.name in before and server.name in after:
                yield delta(read_counters(before[server.name]), read_counters(after[server.name])).of("external_hits")
            else:
                yield None
