"""Requests that were answered by servers that the user did not list.

If the listed servers of a role counted fewer prompt tokens than the clients' answers have, the proxy may also use
servers that the user did not name. The harness's own proxy reports the server in each answer: if all answers name
listed servers, the missing tokens are the listed servers' fault. Otherwise the missing part of every counter is
unknown.

Unlisted servers explain no counter above its expectation: a token that decode computed itself was not transferred,
whichever server the other requests went to.
"""

from collections.abc import Sequence

from harness.facts import Deployment, Role, listed
from harness.history import Operation, Outcome
from harness.oracle import PREDICTED, ServerExpectation
from harness.scenario import Route
from harness.verdict import Bounds


def served_elsewhere(deployment: Deployment, role: Role, operations: Sequence[Operation], *, lacking: int) -> str:
    """Why servers that are not listed may have served some of ``operations``; empty if they cannot have.

    ``lacking``: prompt tokens that are missing in the counters of the listed servers of the role.
    """
    if deployment.launched or lacking <= 0:
        return ""
    answered = [one for one in operations if one.request.route is Route.PROXY and one.outcome is Outcome.OK]
    servers = deployment.of(role)
    if not answered or all(listed(servers, _reported_server(one, role)) for one in answered):
        return ""
    return (
        f"{lacking:,} prompt tokens of answered requests reached no listed {role} server: the proxy may also use "
        "servers that are not listed"
    )


def explained(expectation: ServerExpectation) -> dict[str, Bounds]:
    """The possible growth of each counter if requests were served elsewhere: from nothing to what is expected."""
    found = {name: expectation.of(name) for name in PREDICTED}
    return {name: Bounds(min(own.low, 0), own.high) for name, own in found.items() if own is not None}


def _reported_server(operation: Operation, role: Role) -> str | None:
    return operation.ended.prefill_server if role is Role.PREFILL else operation.ended.decode_server
