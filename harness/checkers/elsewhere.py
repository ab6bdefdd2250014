"""Requests that were answered, and came to no server that is listed. Pure.

What the listed servers of a role counted less than the clients were answered may have been served by others, if the
proxy asks servers that the user did not name. A proxy of the harness's own names the server that it asked in each
answer; where all answers name listed ones, none went elsewhere, and what is missing is the servers' to explain. Where
some do not, what is missing says nothing of the listed servers: up to all of it, in every counter, is unknown.

Nothing explains more than is expected. A token that decode computed itself is one that it did not pull, wherever other
requests went.
"""

from collections.abc import Sequence

from harness.facts import Deployment, Role, listed
from harness.history import Operation, Outcome
from harness.oracle import PREDICTED, ServerExpectation
from harness.scenario import Route
from harness.verdict import Bounds


def served_elsewhere(deployment: Deployment, role: Role, operations: Sequence[Operation], *, lacking: int) -> str:
    """Why servers that are not listed may have served some of ``operations``; empty where they cannot have.

    ``lacking``: prompt tokens that the listed servers of the role counted less than is expected.
    """
    if deployment.launched or lacking <= 0:
        return ""
    answered = [one for one in operations if one.request.route is Route.PROXY and one.outcome is Outcome.OK]
    servers = deployment.of(role)
    if not answered or all(listed(servers, _told(one, role)) for one in answered):
        return ""
    return (
        f"{lacking:,} prompt tokens that were answered came to no {role} server that is listed: the proxy may ask "
        "others, too"
    )


def explained(expectation: ServerExpectation) -> dict[str, Bounds]:
    """What each counter may come to where requests were served elsewhere: anything from nothing to what is expected."""
    found = {name: expectation.of(name) for name in PREDICTED}
    return {name: Bounds(min(own.low, 0), own.high) for name, own in found.items() if own is not None}


def _told(operation: Operation, role: Role) -> str | None:
    return operation.ended.prefill_server if role is Role.PREFILL else operation.ended.decode_server
