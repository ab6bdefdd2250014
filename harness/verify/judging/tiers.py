"""Which offload tiers were not probed, and why.

To probe a tier, the prefix cache in front of it must be emptied. By default the harness does that only on a deployment
that it launched itself.
"""

from collections.abc import Iterator

from harness.facts import Connector, Deployment, Server
from harness.history import History, Outcome
from harness.scenario import Purpose
from harness.verify.judging.hits import server_name

_FLAG = "--probe-tiers"
"""The flag that allows it on any deployment."""


def unprobed_tiers(deployment: Deployment, history: History) -> Iterator[str]:
    """The tiers that were not probed, with the reason, a line each."""
    purposes = {operation.request.purpose for operation in history.operations()}
    for operation in history.operations():
        if operation.request.purpose is Purpose.RESET and operation.outcome is not Outcome.OK:
            name = server_name(deployment, operation)
            why = f"its prefix cache could not be emptied: {operation.ended.cause}"
            yield f"{name}'s offload tier was not probed ({why})"
    if Purpose.RESET not in purposes and Purpose.PROBE in purposes and not deployment.launched:
        tiers = [
            _tier(server)
            for server in deployment.servers
            if server.has(Connector.OFFLOADING) or server.unknown_connectors
        ]
        if tiers:
            yield (
                f"not probed: {', '.join(tiers)}. To probe them, {_FLAG} lets the harness empty the prefix caches of "
                "servers that it did not launch"
            )


def _tier(server: Server) -> str:
    """The tier, with the names of connectors that the harness does not know."""
    unknown = server.unknown_connectors
    return f"{server.name}'s offload tier" + (f" ({', '.join(unknown)})" if unknown else "")
