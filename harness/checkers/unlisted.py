"""More prompt tokens brought than the connectors that a server is known to have can bring.

Of a server that does not list its connectors, only those are known that expose families of their own. One that exposes
none may restore prompts all the same: a surplus of it is nobody's fault, and not known to be right either.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.facts import Server
from harness.verdict import Comparison, Verdict

_BROUGHT, _COMPUTED = ("external_kv_transfer", "external_hits"), "local_compute"


def excused_by_unlisted(comparison: Comparison, servers: Sequence[Server]) -> Comparison:
    """The comparison of these servers' counter; unknown where a connector that is not listed may explain it."""
    expected, observed = comparison.expected, comparison.observed
    if comparison.verdict is not Verdict.INVALID or expected is None or observed is None:
        return comparison
    more = comparison.counter in _BROUGHT and observed > expected.high
    less = comparison.counter == _COMPUTED and observed < expected.low
    silent = [server.name for server in servers if not server.connectors_listed]
    if not silent or not (more or less):
        return comparison
    why = (
        f"{observed:,} counted, {expected} expected; more was brought than NIXL and an offload tier bring, and whether "
        f"{silent[0]} has other connectors is not known: start it with VLLM_SERVER_DEV_MODE=1, so that it lists them"
    )
    return replace(comparison, expected=None, why_unknown=why)
