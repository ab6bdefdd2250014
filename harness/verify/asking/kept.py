"""Which prompts of the load the servers' prefix caches may still hold. Pure."""

import math
from itertools import accumulate, takewhile

from harness.facts import Deployment, Role
from harness.history import History
from harness.memo import once
from harness.scenario import Route
from harness.verify.asking.outputs import through_proxy
from harness.verify.judging.cost import computed


# The price of every owner test depends on it.
@once
def kept_by_prefill(deployment: Deployment, history: History) -> frozenset[str]:
    """Ids of the load's requests whose blocks the prefill servers may have, see ``_kept``."""
    return _kept(deployment, history, Role.PREFILL, Route.PREFILL)


@once
def kept_by_decode(deployment: Deployment, history: History) -> frozenset[str]:
    """Ids of the load's requests whose blocks the decode servers may have, see ``_kept``."""
    return _kept(deployment, history, Role.DECODE, Route.DECODE)


def _kept(deployment: Deployment, history: History, role: Role, route: Route) -> frozenset[str]:
    """Those after which no more tokens were computed, by verification too, than the role's smallest cache holds.

    All of them if the size of no cache is known.
    """
    pools = [(server.num_blocks, server.block_size) for server in deployment.of(role)]
    capacity = min((blocks * size for blocks, size in pools if blocks and size), default=math.inf)
    there = (o for o in history.operations() if o.request.route in (Route.PROXY, route))
    latest = sorted(there, key=lambda o: o.ended.at, reverse=True)
    after = accumulate(map(computed, latest), initial=0)
    # The sum never falls, so that no later one is looked at.
    recent = takewhile(lambda pair: pair[1] <= capacity, zip(latest, after, strict=False))
    ids = (o.request.request_id for o, _ in recent)
    return frozenset(ids).intersection(o.request.request_id for o in through_proxy(history))
