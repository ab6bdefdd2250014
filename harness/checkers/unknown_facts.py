"""Makes invalid comparisons unknown if a fact that a server does not report may explain them.

If a server does not list its connectors, only those with metric families of their own are known. Another connector may
load prompts too, so additional loaded tokens are neither a fault nor known to be right.

vLLM serves a 16-bit checkpoint in 16 bits unless started with ``--dtype float32``, and reports this only in
``/server_info``. If that is not served, bytes that are wrong by a factor of two are unknown.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.facts import Deployment, Server
from harness.verdict import Bounds, Comparison, Verdict

_LOADED, _COMPUTED = ("external_kv_transfer", "external_hits"), "local_compute"
_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")
_FACTOR = 2
"""Bytes of a float32 per byte of a 16-bit number."""


def excused_by_unlisted(comparison: Comparison, servers: Sequence[Server]) -> Comparison:
    """The comparison of these servers' counter, made unknown if an unlisted connector may explain it."""
    expected, observed = comparison.expected, comparison.observed
    silent = [server.name for server in servers if not server.connectors_listed]
    if comparison.verdict is not Verdict.INVALID or not silent or expected is None or observed is None:
        return comparison
    more = comparison.counter in _LOADED and observed > expected.high
    less = comparison.counter == _COMPUTED and observed < expected.low
    why = (
        f"{observed:,} counted, {expected} expected; more tokens were loaded than NIXL and an offload tier can load, "
        f"and {silent[0]} may have other connectors: start it with VLLM_SERVER_DEV_MODE=1, so that it lists them"
    )
    return replace(comparison, expected=None, why_unknown=why) if more or less else comparison


def excused_by_unknown_kv_dtype(comparison: Comparison, deployment: Deployment) -> Comparison:
    """The comparison of servers' bytes, made unknown if the unknown type of their KV may explain it.

    Servers that the harness launched always report their types.
    """
    expected, observed = comparison.expected, comparison.observed
    silent = [] if deployment.launched else [one.name for one in deployment.servers if one.kv_dtype is None]
    if comparison.verdict is not Verdict.INVALID or not silent or expected is None or observed is None:
        return comparison
    twice = comparison.counter in _BYTES and observed in Bounds(expected.low * _FACTOR, expected.high * _FACTOR)
    why = (
        f"{observed:,} bytes are twice the {expected} expected, as with KV of type float32, and {silent[0]} does not "
        "report its type: give it with --kv-cache-dtype, or start the servers with VLLM_SERVER_DEV_MODE=1"
    )
    return replace(comparison, expected=None, why_unknown=why) if twice else comparison
