"""From a run's operations to what each server's counters must say, phase by phase.

All of a run's operations are followed, through phases that are counted and phases that are not, because what an
uncounted one leaves in a cache changes what a later one is served from. Each operation becomes visits to servers
(:mod:`harness.oracle.visit`); each server's visits are taken through its caches (:mod:`harness.oracle.server_model`).

A deployment that was launched for the run knows no prompt: warm-up prompts have salts of their own, and what they
left goes before anything of the run does. One that was attached to may have been asked anything, but not under a salt
of this run: prompts without a salt may be cached there or not, until the run itself has asked them.

Where requests overlap, their order at a server is not known, and what depends on it gets bounds that hold for every
order; :meth:`ServerExpectation.why` says so. What does not depend on it is exact.

Outcomes: ``OK`` counts in full. ``INFO`` may have come to anything between nothing and all of it. ``FAIL`` counts
nothing, with one exception: through the proxy, a 4xx may be D's after P has done its part.

Others' requests evict what this run's left. Servers named as disturbed get bounds that hold whatever was evicted; what
such requests add to the counters themselves is not in them.

Not followed: preemptions, refused stores and failed transfers. The engine counts them, and the checkers look there.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.facts import Connector, Deployment, Role, Server, serving
from harness.history import Operation, Outcome
from harness.oracle.blocks import Names
from harness.oracle.expectation import ServerExpectation, hull
from harness.oracle.server_model import ServerModel
from harness.oracle.shape import Shape, shape_of
from harness.oracle.visit import PhaseKey, Visit, foreign_prefill_visit, prefill_visit, serving_visits
from harness.scenario import Route

ServerKey = str
"""A server's name, or a role (``prefill``) that stands for all its servers together."""


def predict(
    deployment: Deployment, operations: Sequence[Operation], disturbed: Collection[str] = ()
) -> Mapping[PhaseKey, Mapping[ServerKey, ServerExpectation]]:
    """What each server must count in each phase that has operations.

    ``operations``: all of the run, in the order in which they were sent. Every server of the deployment is in every
    phase's mapping, by its name where the history tells who served whom, else within its role. ``disturbed``: names of
    servers that others asked, too.
    """
    ledgers = {server.name: _Ledger(server, Names(server.block_size or 1)) for server in deployment.servers}
    phases: dict[PhaseKey, None] = {}
    for operation in sorted(operations, key=lambda one: one.sent.at):
        phases.setdefault((operation.sent.scenario, operation.sent.phase))
        _enter(deployment, operation, ledgers)
    models = {
        name: ServerModel(deployment, one.server, one.visits, disturbed=name in disturbed)
        for name, one in ledgers.items()
    }
    return {phase: _of_phase(deployment, phase, ledgers, models) for phase in phases}


@dataclass(slots=True)
class _Ledger:
    """One server's visits. Those of which the server is not known are entered on each that it may have been."""

    server: Server
    names: Names
    visits: list[Visit] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)
    """Visits of which the server is not known. They are entered alike on all servers that it may have been."""


def _enter(deployment: Deployment, operation: Operation, ledgers: Mapping[str, _Ledger]) -> None:
    shape = shape_of(operation)
    for role in _roles(deployment, operation):
        servers = _served_by(deployment.of(role), operation, role)
        for server in servers:
            ledger = ledgers[server.name]
            known = len(servers) == 1
            entered = list(_visits(deployment, operation, shape, role, ledger.names, here=known))
            if not known:
                ledger.elsewhere.extend(range(len(ledger.visits), len(ledger.visits) + len(entered)))
            ledger.visits.extend(entered)


def _roles(deployment: Deployment, operation: Operation) -> Iterator[Role]:
    """Which kinds of server the operation may have visited."""
    route = operation.request.route
    # Where nothing transfers there is no proxy either: decode servers are asked in its place.
    transfers = deployment.proxy_url is not None or deployment.has(Connector.NIXL) is not False
    for role, routes in ((Role.PREFILL, (Route.PREFILL,)), (Role.DECODE, (Route.DECODE, Route.PROXY))):
        goes_there = route in routes or (route is Route.PROXY and transfers)
        if goes_there and not _untouched(operation, role):
            yield role


def _untouched(operation: Operation, role: Role) -> bool:
    """Whether a failed operation certainly did nothing on a server of this role."""
    if operation.outcome is not Outcome.FAIL:
        return False
    never_sent = operation.ended.status is None
    return never_sent or operation.request.route is not Route.PROXY or role is Role.DECODE


def _visits(  # noqa: PLR0913 - all that an operation's part on a server depends on
    deployment: Deployment, operation: Operation, shape: Shape | None, role: Role, names: Names, *, here: bool
) -> Iterator[Visit]:
    if operation.request.route is Route.PROXY and role is Role.PREFILL:
        visit = prefill_visit(operation, shape, names, here=here)
        yield foreign_prefill_visit(operation, visit) if deployment.own_proxy is False else visit
    else:
        pulls = operation.request.route is Route.PROXY and deployment.has(Connector.NIXL) is not False
        yield from serving_visits(operation, shape, names, here=here, pulls=pulls)


def _served_by(servers: Sequence[Server], operation: Operation, role: Role) -> Sequence[Server]:
    """The server that did this operation's part in the role; all that it may have been where the history is silent."""
    request, ended = operation.request, operation.ended
    if request.route is not Route.PROXY and request.server is not None and len(servers) > 1:
        return (servers[request.server],)
    url = ended.prefill_server if role is Role.PREFILL else ended.decode_server
    index = serving(servers, url)
    return servers if index is None else (servers[index],)


def _of_phase(
    deployment: Deployment, phase: PhaseKey, ledgers: Mapping[str, _Ledger], models: Mapping[str, ServerModel]
) -> dict[ServerKey, ServerExpectation]:
    grouped = {role for role in Role if any(True for _ in _elsewhere(deployment, phase, ledgers, role))}
    sums: dict[ServerKey, ServerExpectation] = {}
    for server in deployment.servers:
        key = str(server.role) if server.role in grouped else server.name
        sums[key] = sums.get(key, ServerExpectation()) + _on_server(phase, ledgers[server.name], models[server.name])
    for role in grouped:
        sums[str(role)] += _on_any(deployment, phase, ledgers, models, role)
    return sums


def _elsewhere(
    deployment: Deployment, phase: PhaseKey, ledgers: Mapping[str, _Ledger], role: Role
) -> Iterator[tuple[str, int]]:
    """Visits of the phase whose server is not known, on each server that it may have been."""
    for server in deployment.of(role):
        ledger = ledgers[server.name]
        yield from ((server.name, index) for index in ledger.elsewhere if ledger.visits[index].phase == phase)


def _on_server(phase: PhaseKey, ledger: _Ledger, model: ServerModel) -> ServerExpectation:
    total = model.shared.get(phase, ServerExpectation())
    for index, visit in enumerate(ledger.visits):
        if visit.phase == phase and index not in ledger.elsewhere:
            one = model.visited(index)
            total += one if visit.sure else one.possibly()
    return total


def _on_any(
    deployment: Deployment,
    phase: PhaseKey,
    ledgers: Mapping[str, _Ledger],
    models: Mapping[str, ServerModel],
    role: Role,
) -> ServerExpectation:
    """What visits add that took place on one of the role's servers, nobody knows which."""
    on_each = [
        [
            (index, models[server.name])
            for name, index in _elsewhere(deployment, phase, ledgers, role)
            if name == server.name
        ]
        for server in deployment.of(role)
    ]
    total = ServerExpectation()
    for candidates in zip(*on_each, strict=True):
        one = hull(model.visited(index) for index, model in candidates)
        total += one if candidates[0][1].visits[candidates[0][0]].end < float("inf") else one.possibly()
    return total
