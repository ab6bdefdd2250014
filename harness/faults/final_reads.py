"""After the faults: every prompt is asked again, through each of the caches that the load may have left damaged.

A fault may leave wrong KV where no request of the load looks any more: a block that was written for a request that was
cut, a chunk of the offload tier that was stored from a block in use. So each prompt of the load is asked again

1. through the proxy, where decode finds it in its prefix cache or pulls it from prefill,
2. on a prefill server alone, which finds it in its prefix cache,
3. on a decode and on a prefill server alone after their prefix caches were emptied, where the offload tier has it,

and these answers are verified like all others. The newest are asked first: a cache that cannot hold all of them has
lost the oldest, and each of these would take the place of a newer one before that is read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.facts import Connector, Deployment
from harness.faults.churn import churned
from harness.faults.fault import OfLoad
from harness.faults.plan import FaultPlan
from harness.scenario import Phase, Purpose, Request, Route, Sampling, Scenario

_CONCURRENCY = 16
"""Requests in flight, at most: the load's own concurrency may be more than servers with small pools carry at once."""
_TOKENS = 16
"""Tokens of each answer, at most: wrong KV of a prompt shows in the tokens right behind it, and whole answers of a long
load would take several times as long as the load."""


def under_faults(scenario: Scenario, deployment: Deployment, plans: Iterable[FaultPlan] = ()) -> Scenario:
    """The scenario, whose load is sent under the run's faults, and the final reads after it."""
    plans = tuple(plans)
    of_load = [plan.fault for plan in plans if isinstance(plan.fault, OfLoad)]
    churns = any(getattr(plan.fault, "churns", False) for plan in plans)
    loads = [phase for phase in scenario.phases if any(one.of_load for one in phase.requests)]
    sent = {id(phase): _marked(churned(phase) if churns else phase, of_load) for phase in loads}
    marked = tuple(sent.get(id(phase), phase) for phase in scenario.phases)
    reads = tuple(read for phase in loads for read in _reads(phase, deployment))
    return replace(scenario, phases=(*marked, *reads))


def _marked(load: Phase, faults: Iterable[OfLoad]) -> Phase:
    """The load as it is sent under the faults. A request that another one continues stays as it is."""
    continued = {one.continues for one in load.requests}
    requests = list(load.requests)
    for fault in faults:
        requests = [one if one.request_id in continued else fault.changed(one) for one in requests]
    return replace(load, requests=tuple(requests), faulted=True)


def _reads(load: Phase, deployment: Deployment) -> Iterator[Phase]:
    yield _read(load, "decode-cache", Route.PROXY)
    yield _read(load, "prefill-cache", Route.PREFILL)
    if deployment.has(Connector.OFFLOADING) and deployment.launched:
        yield _emptied(load, deployment)
        yield _read(load, "decode-tier", Route.DECODE)
        yield _read(load, "prefill-tier", Route.PREFILL)


def _read(load: Phase, name: str, route: Route) -> Phase:
    """Every request of the load again; those that continue another one need its answer, and are left out.

    ``about`` lets the runner leave out those whose request was not sent, because the load's time was over.
    """
    again = tuple(
        replace(
            one,
            request_id=f"{one.request_id}-{name}",
            about=one.request_id,
            route=route,
            server=None,
            expect_status=None,
            sampling=_shortened(one.sampling),
        )
        for one in reversed(load.requests)
        if one.continues is None
    )
    return Phase(f"{load.name}: final read, {name}", again, min(load.concurrency, _CONCURRENCY))


def _shortened(sampling: Sampling) -> Sampling:
    if sampling.max_tokens <= _TOKENS:
        return sampling
    fewest = sampling.min_tokens
    return replace(sampling, max_tokens=_TOKENS, min_tokens=None if fewest is None else min(_TOKENS, fewest))


def _emptied(load: Phase, deployment: Deployment) -> Phase:
    """Empties every prefix cache."""
    routes = {"prefill": Route.PREFILL, "decode": Route.DECODE}
    seen: dict[str, int] = {}
    requests = []
    for server in deployment.servers:
        number = seen[server.role] = seen.get(server.role, -1) + 1
        requests.append(
            Request(
                f"{load.name}-empty-{server.name}", (), route=routes[server.role], server=number, purpose=Purpose.RESET
            )
        )
    return Phase(f"{load.name}: empty prefix caches", tuple(requests), counted=False)
