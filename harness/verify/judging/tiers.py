"""Which offload tiers were not probed, and why.

To probe a tier, the prefix cache in front of it must be emptied. By default the harness does that only on a deployment
that it launched itself.
"""

from collections.abc import Iterator

from harness.facts import Connector, Deployment, Server
from harness.history import History, Outcome
from harness.scenario import Purpose
from harness.verify.judging.hits import server_name
from harness.verify.judging.load_part import asked_of

_FLAG = "--probe-tiers"
"""The flag that allows this on any deployment."""


def may_have_tier(server: Server) -> bool:
    """Whether blocks remain, or may remain, behind the server's prefix cache when it is emptied."""
    return server.has(Connector.OFFLOADING) is True or bool(server.unknown_connectors)


def unprobed_tiers(deployment: Deployment, history: History) -> Iterator[str]:
    """A line for each tier that was not probed, with the reason."""
    purposes = {operation.request.purpose for operation in asked_of(history)}
    for operation in asked_of(history):
        if operation.request.purpose is Purpose.RESET and operation.outcome is not Outcome.OK:
            name = server_name(deployment, operation)
            why = f"its prefix cache could not be emptied: {operation.ended.cause}"
            yield f"{name}'s offload tier was not probed ({why})"
    tiers = [_tier(server) for server in deployment.servers if may_have_tier(server)]
    if tiers and Purpose.RESET not in purposes and Purpose.PROBE in purposes:
        yield f"not probed: {', '.join(tiers)}. {_why(deployment)}"


def _why(deployment: Deployment) -> str:
    if deployment.launched:
        return "Probing them empties the servers' prefix caches, on which later workloads may rely"
    return f"To probe them, {_FLAG} lets the harness empty the prefix caches of servers that it did not launch"


def _tier(server: Server) -> str:
    """The tier, with the names of connectors that the harness does not know."""
    unknown = server.unknown_connectors
    return f"{server.name}'s offload tier" + (f" ({', '.join(unknown)})" if unknown else "")
