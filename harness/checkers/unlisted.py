"""More prompt tokens were loaded than the known connectors of a server can load.

If a server does not list its connectors, only those with metric families of their own are known. Another connector may
load prompts too, so additional loaded tokens are neither a fault nor known to be right.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.facts import Server
from harness.verdict import Comparison, Verdict

_LOADED, _COMPUTED = ("external_kv_transfer", "external_hits"), "local_compute"


def excused_by_unlisted(comparison: Comparison, servers: Sequence[Server]) -> Comparison:
    """The comparison of these servers' counter, made unknown if an unlisted connector may explain it."""
    expected, observed = comparison.expected, comparison.observed
    if comparison.verdict is not Verdict.INVALID or expected is None or observed is None:
        return comparison
    more = comparison.counter in _LOADED and observed > expected.high
    less = comparison.counter == _COMPUTED and observed < expected.low
    silent = [server.name for server in servers if not server.connectors_listed]
    if not silent or not (more or less):
        return comparison
    why = (
        f"{observed:,} counted, {expected} expected; more tokens were loaded than NIXL and an offload tier can load, "
        f"and {silent[0]} may have other connectors: start it with VLLM_SERVER_DEV_MODE=1, so that it lists them"
    )
    return replace(comparison, expected=None, why_unknown=why)
