"""From a run's operations to the bounds of each server's counters, phase by phase.

All operations of a run are followed, in counted and uncounted phases, because blocks that an uncounted phase leaves in
a cache change the hits of later phases. Each operation becomes server requests (:mod:`harness.oracle.server_request`),
which go through a model of the server's caches (:mod:`harness.oracle.server_model`).

A deployment launched for the run has no prompt of the run cached: warm-up prompts have salts of their own, and their
blocks are evicted before any block of the run. A deployment that the harness attached to may have any prompt cached,
but none under a salt of this run. So a prompt without a salt may or may not be cached until the run has sent it.

If requests overlap, their order at a server is not known. A counter that depends on it gets bounds that hold for every
order, and :meth:`ServerExpectation.why` says so; all other counters are exact.

An operation that ended ``OK`` counts in full, one that ended as ``INFO`` between nothing and all of it. A ``FAIL``
counts nothing, with one exception: a 4xx through the proxy may come from decode, after prefill has done its part.

Other clients' requests evict blocks that this run left. A server named as disturbed gets bounds that hold whichever
blocks were evicted; they do not include the growth that other clients' requests cause.

Preemptions, refused stores and failed transfers are not modelled. The engine counts them, and checkers read these
counters.
"""

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from harness.facts import Connector, Deployment, Role, Server, serving
from harness.history import Operation, Outcome
from harness.oracle.blocks import Names
from harness.oracle.expectation import ServerExpectation, hull, summed
from harness.oracle.server_model import ServerModel
from harness.oracle.server_request import (
    PhaseKey,
    ServerRequest,
    foreign_prefill_request,
    prefill_request,
    serving_requests,
)
from harness.oracle.shape import Shape, shape_of
from harness.scenario import Route

ServerKey = str
"""A server's name, or a role (``prefill``) for the sum over all its servers."""


def predict(
    deployment: Deployment, operations: Sequence[Operation], disturbed: Collection[str] = ()
) -> Mapping[PhaseKey, Mapping[ServerKey, ServerExpectation]]:
    """The growth of each server's counters in each phase that has operations.

    ``operations``: all operations of the run. Every server of the deployment is in every phase's mapping: by its name
    if the history shows which server served each operation, else within the sum of its role. ``disturbed``: names of
    servers that other clients asked, too.
    """
    prediction = Prediction(deployment)
    for operation in sorted(operations, key=lambda one: one.sent.at):
        prediction.add(operation)
    return prediction.expected(disturbed)


class Prediction:
    """A prediction to which operations are added one after another, while a run goes on."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._names = {server.block_size: Names(server.block_size or 1) for server in deployment.servers}
        self._logs = {one.name: _ServerLog(one, self._names[one.block_size]) for one in deployment.servers}
        self._phases: dict[PhaseKey, None] = {}

    def add(self, operation: Operation) -> None:
        """Add an operation that has ended. They are added in the order in which they were sent."""
        self._phases.setdefault((operation.sent.scenario, operation.sent.phase))
        _add_operation(self._deployment, operation, self._logs)

    def expected(self, disturbed: Collection[str] = ()) -> Mapping[PhaseKey, Mapping[ServerKey, ServerExpectation]]:
        """As :func:`predict` returns it. Nothing can be added or asked any more."""
        for one in self._names.values():
            one.forget()
        grown: dict[str, Mapping[PhaseKey, ServerExpectation]] = {}
        models: dict[str, ServerModel] = {}
        for name, log in self._logs.items():
            # One server after the other: a model takes much memory, and most are not needed any more.
            model = ServerModel(self._deployment, log.server, log.requests, disturbed=name in disturbed)
            grown[name] = {phase: _on_server(phase, log, model) for phase in self._phases}
            models |= {name: model} if log.unassigned else {}
            if not log.unassigned:
                log.requests.clear()
        return {phase: _of_phase(self._deployment, phase, self._logs, grown, models) for phase in self._phases}


@dataclass(slots=True)
class _ServerLog:
    """One server's requests, in the order in which they were sent."""

    server: Server
    names: Names
    requests: list[ServerRequest] = field(default_factory=list)
    assigned: dict[PhaseKey, "array[int]"] = field(default_factory=dict)
    """Indices of requests that this server served if any did, by phase."""
    unassigned: dict[PhaseKey, "array[int]"] = field(default_factory=dict)
    """Indices of requests that another server of the role may have served; each of these servers has them, too."""


def _add_operation(deployment: Deployment, operation: Operation, logs: Mapping[str, _ServerLog]) -> None:
    shape = shape_of(operation)
    for role in _roles(deployment, operation):
        servers = _candidates(deployment.of(role), operation, role)
        for server in servers:
            log = logs[server.name]
            known_server = len(servers) == 1
            added = list(_requests_of(deployment, operation, shape, role, log.names, known_server=known_server))
            by_phase = log.assigned if known_server else log.unassigned
            phase = operation.sent.scenario, operation.sent.phase
            by_phase.setdefault(phase, array("i")).extend(range(len(log.requests), len(log.requests) + len(added)))
            log.requests.extend(added)


def _roles(deployment: Deployment, operation: Operation) -> Iterator[Role]:
    """The roles whose servers the operation may have reached."""
    route = operation.request.route
    # A deployment without KV transfer has no proxy: requests for the proxy are sent to decode servers.
    transfers = deployment.proxy_url is not None or deployment.has(Connector.NIXL) is not False
    for role, routes in ((Role.PREFILL, (Route.PREFILL,)), (Role.DECODE, (Route.DECODE, Route.PROXY))):
        reaches = route in routes or (route is Route.PROXY and transfers)
        if reaches and not _left_untouched(operation, role):
            yield role


def _left_untouched(operation: Operation, role: Role) -> bool:
    """Whether a failed operation certainly did nothing on any server of this role."""
    if operation.outcome is not Outcome.FAIL:
        return False
    never_sent = operation.ended.status is None
    return never_sent or operation.request.route is not Route.PROXY or role is Role.DECODE


def _requests_of(  # noqa: PLR0913 - all that an operation's part on a server depends on
    deployment: Deployment, operation: Operation, shape: Shape | None, role: Role, names: Names, *, known_server: bool
) -> Iterator[ServerRequest]:
    if operation.request.route is Route.PROXY and role is Role.PREFILL:
        request = prefill_request(operation, shape, names, known_server=known_server)
        yield foreign_prefill_request(operation, request) if deployment.own_proxy is False else request
    else:
        pulls = operation.request.route is Route.PROXY and deployment.has(Connector.NIXL) is not False
        yield from serving_requests(operation, shape, names, known_server=known_server, pulls=pulls)


def _candidates(servers: Sequence[Server], operation: Operation, role: Role) -> Sequence[Server]:
    """The server of this role that served the operation; every possible one if the history does not show which."""
    request, ended = operation.request, operation.ended
    if request.route is not Route.PROXY and request.server is not None and len(servers) > 1:
        return (servers[request.server],)
    url = ended.prefill_server if role is Role.PREFILL else ended.decode_server
    index = serving(servers, url)
    return servers if index is None else (servers[index],)


def _of_phase(
    deployment: Deployment,
    phase: PhaseKey,
    logs: Mapping[str, _ServerLog],
    grown: Mapping[str, Mapping[PhaseKey, ServerExpectation]],
    models: Mapping[str, ServerModel],
) -> dict[ServerKey, ServerExpectation]:
    unassigned = {
        role: [logs[one.name].unassigned.get(phase, array("i")) for one in deployment.of(role)] for role in Role
    }
    summed_roles = {role for role, on_each_server in unassigned.items() if any(on_each_server)}
    sums: dict[ServerKey, ServerExpectation] = {}
    for server in deployment.servers:
        key = str(server.role) if server.role in summed_roles else server.name
        sums[key] = sums.get(key, ServerExpectation()) + grown[server.name][phase]
    for role in summed_roles:
        sums[str(role)] += _on_any([models[one.name] for one in deployment.of(role)], unassigned[role])
    return sums


def _on_server(phase: PhaseKey, log: _ServerLog, model: ServerModel) -> ServerExpectation:
    every = ((log.requests[index], model.expectation_of(index)) for index in log.assigned.get(phase, ()))
    own = (one if request.certain else one.possibly() for request, one in every)
    return summed(chain((model.shared.get(phase, ServerExpectation()),), own))


def _on_any(models: Sequence[ServerModel], unassigned: Sequence[Sequence[int]]) -> ServerExpectation:
    """The sum over requests, each of which one of these servers served; ``unassigned``: indices per server."""
    return summed(_of_any(models, indices) for indices in zip(*unassigned, strict=True))


def _of_any(models: Sequence[ServerModel], indices: Sequence[int]) -> ServerExpectation:
    one = hull(model.expectation_of(index) for model, index in zip(models, indices, strict=True))
    return one if models[0].requests[indices[0]].end < float("inf") else one.possibly()
