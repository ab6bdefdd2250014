"""Probes of offload tiers: the prefixes once more, when the prefix caches in front of the tiers were emptied.

A prefix cache is emptied by ``POST /reset_prefix_cache``, which leaves the tier as it is. Where a server has no such
endpoint, or its caches may not be emptied, its tier is not probed, and the checker of outputs says so. (Enough other
prompts to fill the pool would push the blocks out as well, but out of the tier too: these prompts are offloaded
themselves.)
"""

from collections.abc import Iterator

from harness.facts import Connector, Server
from harness.history import History
from harness.scenario import Condition, Purpose, Request
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import completed
from harness.verify.asking.policy import tier_prefixes
from harness.verify.asking.probe import ROLES, drawn, most_probed, probe_phase

_MOST_PREFIXES = 1024
"""Prefixes that each tier is asked for, the longer ones first: they restore the blocks that the shorter ones read."""


def tier_reset(verification: Verification, history: History) -> Phases:
    """Empties the prefix cache of every server that has a tier, after its cache was probed.

    The deployment has settled by then, for a cache is not emptied while a request holds blocks of it.
    """
    wanted = verification.how.probe_tiers and completed(history, Purpose.PROBE)
    return verification.phase("reset", _resets(verification) if wanted else (), history, watched=True)


def tier_probes(verification: Verification, history: History) -> Phases:
    """The prefixes, of each server whose prefix cache was emptied."""
    emptied = {(o.request.route, o.request.server) for o in completed(history, Purpose.RESET)}
    most = tier_prefixes(verification.how.policy, most_probed(verification, history), _MOST_PREFIXES)
    phases: Phases = ()
    for route in ROLES if emptied else ():
        held = [one for one in drawn(verification, history, route) if (route, one.server) in emptied]
        chosen = sorted(held[:most], key=lambda prefix: -prefix.tokens)
        phases += probe_phase(verification, history, route, chosen, Condition.OFFLOAD_TIER)
    return phases


def _resets(verification: Verification) -> Iterator[Request]:
    for route, role in ROLES.items():
        for number, server in enumerate(verification.deployment.of(role)):
            if _has_tier(server):
                name = f"reset-{route}-{number}"
                yield Request(name, (), route=route, server=number, stream=False, purpose=Purpose.RESET)


def _has_tier(server: Server) -> bool:
    """Whether blocks remain, or may remain, behind the server's prefix cache when it is emptied."""
    return server.has(Connector.OFFLOADING) is True or bool(server.unknown_connectors)
