"""Which offload tiers were not asked, and why: to ask one takes emptying the prefix cache in front of it.

That is done unasked on a deployment that the harness launched, and on nobody else's.
"""

from collections.abc import Iterator

from harness.facts import Connector, Deployment, Server
from harness.history import History, Outcome
from harness.scenario import Purpose
from harness.verify.judging.hits import server_name

ALLOWED_BY = "--probe-tiers"
"""The flag that allows it."""


def tiers_not_asked(deployment: Deployment, history: History) -> Iterator[str]:
    """What was not asked, in words."""
    resets = [operation for operation in history.operations() if operation.request.purpose is Purpose.RESET]
    for operation in resets:
        if operation.outcome is not Outcome.OK:
            name = server_name(deployment, operation)
            why = f"its prefix cache could not be emptied: {operation.ended.cause}"
            yield f"{name}'s offload tier was not asked ({why})"
    if not resets and _probed(history):
        left_out = [
            tier_called(server)
            for server in deployment.servers
            if server.has(Connector.OFFLOADING) or server.unknown_connectors
        ]
        if left_out:
            yield f"not asked: {', '.join(left_out)}; that takes emptying the prefix caches {_why(deployment)}"


def _why(deployment: Deployment) -> str:
    if deployment.launched:
        return "of the servers, which is not done while further workloads may follow"
    return f"of servers that the harness did not launch, which {ALLOWED_BY} allows"


def tier_called(server: Server) -> str:
    """With the names of connectors that nobody knows."""
    unknown = server.unknown_connectors
    return f"{server.name}'s offload tier" + (f" ({', '.join(unknown)})" if unknown else "")


def _probed(history: History) -> bool:
    return any(operation.request.purpose is Purpose.PROBE for operation in history.operations())
