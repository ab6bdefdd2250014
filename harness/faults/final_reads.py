"""Which part of a load is sent under faults, and what follows: every prompt is asked again.

Of a workload's phases, the largest is sent under its faults, each of which is struck once. That is the one with most
requests through the path under test; of equal ones the last, which finds what the others left.

Then every prompt is asked again, through each of the caches that the load may have left damaged.

A fault may leave wrong KV where no request of the load looks any more: a block that was written for a request that was
cut, a chunk of the offload tier that was stored from a block in use. So each prompt of the load is asked again

1. through the proxy, where decode finds it in its prefix cache or pulls it from prefill,
2. on a prefill server alone, which finds it in its prefix cache,
3. on a decode and on a prefill server alone after their prefix caches were emptied, where the offload tier has it,

and these answers are verified like all others. The newest are asked first: a cache that cannot hold all of them has
lost the oldest, and each of these would take the place of a newer one before that is read.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
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
    struck = _struck(loads)
    needed = {name for phase in loads for one in phase.requests for name in (one.continues, one.reference_of) if name}
    sent = _marked(churned(struck, scenario.name) if churns else struck, of_load, needed)
    marked = tuple(sent if phase is struck else phase for phase in scenario.phases)
    return replace(scenario, phases=(*marked, *_reads(scenario.name, loads, deployment)))


def joined(scenarios: Iterable[Scenario], deployment: Deployment, plans: Collection[FaultPlan]) -> tuple[Scenario, ...]:
    """The scenarios of workloads, each under the faults of its name."""
    of: dict[str, list[FaultPlan]] = {}
    for plan in plans:
        of.setdefault(plan.workload, []).append(plan)
    return tuple(under_faults(one, deployment, of[one.name]) if one.name in of else one for one in scenarios)


def _struck(loads: Sequence[Phase]) -> Phase:
    """The phase during which faults are caused."""

    def size(phase: Phase) -> tuple[int, int]:
        own = [one for one in phase.requests if one.of_load]
        return sum(one.route is Route.PROXY for one in own), len(own)

    return max(reversed(loads), key=size)


def _marked(load: Phase, faults: Iterable[OfLoad], needed: Collection[str]) -> Phase:
    """The load as it is sent under the faults. Requests whose answers others need, or whose end is planned, stay."""

    def stays(one: Request) -> bool:
        return one.request_id in needed or one.reference_of is not None or one.expect_status is not None

    requests = list(load.requests)
    for fault in faults:
        requests = [one if stays(one) else fault.changed(one) for one in requests]
    return replace(load, requests=tuple(requests), faulted=True)


def _reads(scenario: str, loads: Sequence[Phase], deployment: Deployment) -> Iterator[Phase]:
    yield _read(loads, "decode-cache", Route.PROXY)
    yield _read(loads, "prefill-cache", Route.PREFILL)
    if deployment.has(Connector.OFFLOADING) and deployment.launched:
        yield _emptied(scenario, deployment)
        yield _read(loads, "decode-tier", Route.DECODE)
        yield _read(loads, "prefill-tier", Route.PREFILL)


def _read(loads: Sequence[Phase], name: str, route: Route) -> Phase:
    """Every prompt of the load again, without what was special about its sending.

    ``about`` lets the runner leave out those whose request was not sent, because the load's time was over.
    """
    again = tuple(_plainly(one, f"{one.request_id}-{name}", route) for one in _newest_first(loads))
    return Phase(f"final read, {name}", again, min(_CONCURRENCY, max(load.concurrency for load in loads)))


def _newest_first(loads: Sequence[Phase]) -> Iterator[Request]:
    """The requests that are asked again: of those with the same prompt and parameters, the newest.

    Those that continue another one need its answer, and those that must be refused have none: they are left out.
    """
    seen: set[tuple[object, ...]] = set()
    for load in reversed(loads):
        for one in reversed(load.requests):
            same = one.prompt, one.cache_salt, one.endpoint, one.sampling
            # If the load's time is limited, the newest may never be sent.
            if one.continues is None and one.expect_status is None and (same not in seen or load.seconds is not None):
                seen.add(same)
                yield one


def _plainly(request: Request, name: str, route: Route) -> Request:
    return replace(
        request,
        request_id=name,
        about=request.request_id,
        route=route,
        server=None,
        leaves=None,
        leaves_after=0.0,
        holds=False,
        reference_of=None,
        altered=None,
        may_be_refused=False,
        deadline=None,
        sampling=_shortened(request.sampling),
    )


def _shortened(sampling: Sampling) -> Sampling:
    if sampling.max_tokens <= _TOKENS:
        return sampling
    fewest = sampling.min_tokens
    return replace(sampling, max_tokens=_TOKENS, min_tokens=None if fewest is None else min(_TOKENS, fewest))


def _emptied(scenario: str, deployment: Deployment) -> Phase:
    """Empties every prefix cache."""
    routes = {"prefill": Route.PREFILL, "decode": Route.DECODE}
    seen: dict[str, int] = {}
    requests = []
    for server in deployment.servers:
        number = seen[server.role] = seen.get(server.role, -1) + 1
        requests.append(
            Request(
                f"{scenario}-empty-{server.name}", (), route=routes[server.role], server=number, purpose=Purpose.RESET
            )
        )
    return Phase("empty prefix caches", tuple(requests), counted=False)
