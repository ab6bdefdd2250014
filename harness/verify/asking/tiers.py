"""Probes of offload tiers: the prefixes are sent once more after the prefix caches were emptied.

``POST /reset_prefix_cache`` empties a prefix cache and leaves the tier as it is. If a server has no such endpoint, or
its caches must not be emptied, its tier is not probed, and the checker of outputs reports that. (Filling the pool with
other prompts would evict the blocks from the tier as well, since these prompts are offloaded too.)
"""

from collections.abc import Iterator
from itertools import islice

from harness.history import History
from harness.scenario import Purpose, Request
from harness.verify.asking.ledger import Mark
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import completed
from harness.verify.asking.prefixes import drawn
from harness.verify.asking.probe import tier_phase
from harness.verify.judging.hits import ROLES
from harness.verify.judging.tiers import may_have_tier

_MOST_PREFIXES = 1024
"""Prefixes sent to each tier, longer ones first: they restore the blocks that shorter ones read."""
TIERS = Mark(tokens=0.99, seconds=0.98)
"""What may be spent when the tiers have been probed."""


def tier_reset(verification: Verification, history: History) -> Phases:
    """Empties the prefix cache of every server that has a tier, after its cache was probed.

    The phase waits until the deployment has settled: a server refuses while a request holds blocks.
    """
    wanted = verification.how.probe_tiers and completed(history, Purpose.PROBE)
    return verification.phase("reset", _resets(verification) if wanted else (), history, watched=True)


def tier_probes(verification: Verification, history: History) -> Phases:
    """The prefixes, for each server whose prefix cache was emptied."""
    emptied = {(o.request.route, o.request.server) for o in completed(history, Purpose.RESET)}
    most = min(_MOST_PREFIXES, verification.ledger(history).probes_left(TIERS) // max(len(emptied), 1))
    phases: Phases = ()
    for route in ROLES if emptied else ():
        held = (one for one in drawn(verification, history, route) if (route, one.server) in emptied)
        chosen = sorted(islice(held, most), key=lambda prefix: -prefix.tokens)
        phases += tier_phase(verification, history, route, chosen)
    return phases


def _resets(verification: Verification) -> Iterator[Request]:
    for route, role in ROLES.items():
        for number, server in enumerate(verification.deployment.of(role)):
            if may_have_tier(server):
                name = f"reset-{route}-{number}"
                yield Request(name, (), route=route, server=number, stream=False, purpose=Purpose.RESET)
