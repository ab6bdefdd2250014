"""From a run's operations to what each server's counters must say, phase by phase.

Operations are followed in the order in which they were sent, through phases that are counted and phases that are
not, because what an uncounted one leaves in a cache changes what a later one is served from. Modelled so far: prompts
of which no cache holds a whole block (:mod:`harness.oracle.cold`). A prompt whose first whole block an earlier
request of the run may have left on a server makes that server's phase unpredictable, with the reason; it never
yields a number that might be wrong. (A hit needs its first block, since a block's hash covers all before it.)

Outcomes: ``OK`` counts in full. ``INFO`` may have come to anything between nothing and all of it. ``FAIL`` counts
nothing, with one exception: through the proxy, a 4xx may be D's after P has done its part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.facts import Deployment, Role, Server
from harness.history import Operation, Outcome
from harness.oracle.cold import Cold
from harness.oracle.expectation import PREDICTED, ServerExpectation, unpredictable
from harness.oracle.shape import Shape, not_modelled, shape_of
from harness.scenario import Route
from harness.verdict import Bounds

PhaseKey = tuple[str, str]
"""Scenario and phase, by name."""
ServerKey = str
"""A server's name, or a role (``prefill``) that stands for all its servers together."""

_ROLES = {
    Route.PROXY: (Role.PREFILL, Role.DECODE),
    Route.PREFILL: (Role.PREFILL,),
    Route.DECODE: (Role.DECODE,),
}
_TOTALS = frozenset({"prompt_tokens", "generation_tokens"})
"""What does not depend on any cache."""


def predict(
    deployment: Deployment, operations: Sequence[Operation]
) -> Mapping[PhaseKey, Mapping[ServerKey, ServerExpectation]]:
    """What each server must count in each phase that has operations.

    ``operations``: all of the run, in the order in which they were sent. Every server of the deployment is in every
    phase's mapping, by its name where the history tells who served whom, else within its role.
    """
    caches = _Caches()
    phases: dict[PhaseKey, list[_Part]] = {}
    for operation in operations:
        key = (operation.sent.scenario, operation.sent.phase)
        phases.setdefault(key, []).extend(_parts(deployment, operation, caches))
    return {key: _by_server(deployment, parts) for key, parts in phases.items()}


@dataclass(frozen=True, slots=True)
class _Part:
    """What one operation asks of one role, and of which server if that is known."""

    role: Role
    server: str | None
    expectation: ServerExpectation


@dataclass(slots=True)
class _Caches:
    """First whole blocks that earlier requests may have left, by role: which of its servers has them is not kept."""

    blocks: dict[Role, set[object]] = field(default_factory=lambda: {role: set() for role in Role})
    unknown: dict[Role, str] = field(default_factory=dict)
    """A request that may have left anything, because its tokens are not known."""

    def may_hold(self, role: Role, shape: Shape, block_size: int) -> str:
        """Why the prompt may hit in a cache; empty when it cannot."""
        if shape.tokens < block_size:
            return ""
        if role in self.unknown:
            return f"how the prompt of {self.unknown[role]} was tokenized is not known: its blocks may serve others"
        if shape.first_block(block_size) in self.blocks[role]:
            return "shares its first block with an earlier request: warm caches are not modelled yet"
        return ""

    def leave(self, role: Role, shape: Shape, block_size: int) -> None:
        """The request may leave its first whole block behind."""
        first = shape.first_block(block_size)
        if first is not None:
            self.blocks[role].add(first)


def _parts(deployment: Deployment, operation: Operation, caches: _Caches) -> Iterator[_Part]:
    for role in _ROLES[operation.request.route]:
        servers = deployment.of(role)
        if not servers or _untouched(operation, role):
            continue
        whole = _expected(deployment, operation, role, caches)
        expectation = whole if operation.outcome is Outcome.OK else whole.possibly()
        yield _Part(role, _served_by(servers, operation, role), expectation)


def _untouched(operation: Operation, role: Role) -> bool:
    """Whether a failed operation certainly did nothing on a server of this role."""
    if operation.outcome is not Outcome.FAIL:
        return False
    never_sent = operation.ended.status is None
    return never_sent or operation.request.route is not Route.PROXY or role is Role.DECODE


def _expected(deployment: Deployment, operation: Operation, role: Role, caches: _Caches) -> ServerExpectation:
    who = operation.request.request_id
    shape = shape_of(operation)
    if shape is None:
        caches.unknown.setdefault(role, who)
        return unpredictable(f"how the prompt of {who} was tokenized is not known")
    server = deployment.of(role)[0]
    block_size = server.block_size or 1
    warm = caches.may_hold(role, shape, block_size)
    caches.leave(role, shape, block_size)
    if reason := not_modelled(operation):
        return unpredictable(reason)
    cold = _cold(Cold(deployment, server), operation.request.route, role, shape)
    return _warm(cold, shape, f"{who} {warm}") if warm else cold


def _cold(formulas: Cold, route: Route, role: Role, shape: Shape) -> ServerExpectation:
    if route is not Route.PROXY:
        return formulas.alone(shape)
    return formulas.prefill(shape) if role is Role.PREFILL else formulas.decode(shape)


def _warm(cold: ServerExpectation, shape: Shape, reason: str) -> ServerExpectation:
    """What stays certain of a prompt that a cache may hold."""
    if shape.skips_caches:
        # It reads nothing, so only what it stores depends on what is stored already.
        return replace(cold, offload_store_bytes=Bounds(0, cold.offload_store_bytes.high))
    uncertain = {name: reason for name in PREDICTED if name not in _TOTALS}
    return replace(cold, unpredictable={**uncertain, **cold.unpredictable})


def _served_by(servers: Sequence[Server], operation: Operation, role: Role) -> str | None:
    """The name of the server that did this operation's part in the role; None when the history does not tell."""
    if len(servers) == 1:
        return servers[0].name
    request, ended = operation.request, operation.ended
    if request.route is not Route.PROXY and request.server is not None:
        return servers[request.server].name
    url = ended.prefill_server if role is Role.PREFILL else ended.decode_server
    return next((server.name for server in servers if url and server.url.rstrip("/") == url.rstrip("/")), None)


def _by_server(deployment: Deployment, parts: Sequence[_Part]) -> dict[ServerKey, ServerExpectation]:
    grouped = {part.role for part in parts if part.server is None}
    sums: dict[ServerKey, ServerExpectation] = {}
    for server in deployment.servers:
        sums.setdefault(server.role if server.role in grouped else server.name, ServerExpectation())
    for part in parts:
        key = part.role if part.role in grouped or part.server is None else part.server
        sums[key] += part.expectation
    return {str(key): expectation for key, expectation in sums.items()}
