"""Twice the expected bytes, from servers that do not report the element type of their KV.

vLLM serves a 16-bit checkpoint in 16 bits unless started with ``--dtype float32``, and reports this only in
``/server_info``. If that is not served, bytes that are wrong by a factor of two are unknown.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.facts import Server
from harness.verdict import Bounds, Comparison, Verdict

_BYTES = ("nixl_bytes", "offload_load_bytes", "offload_store_bytes")
_FACTOR = 2
"""Bytes of a float32 per byte of a 16-bit number."""


def excused_by_unknown_kv_dtype(comparison: Comparison, servers: Sequence[Server]) -> Comparison:
    """The comparison of these servers' bytes, made unknown if the unknown type of their KV may explain it."""
    expected, observed = comparison.expected, comparison.observed
    if comparison.verdict is not Verdict.INVALID or expected is None or observed is None:
        return comparison
    silent = [server.name for server in servers if server.kv_dtype is None]
    wider = Bounds(expected.low * _FACTOR, expected.high * _FACTOR)
    if comparison.counter not in _BYTES or not silent or not wider.low <= observed <= wider.high:
        return comparison
    why = (
        f"{observed:,} bytes are twice the {expected} expected, as with KV of type float32, and {silent[0]} does not "
        "report its type: give it with --kv-cache-dtype, or start the servers with VLLM_SERVER_DEV_MODE=1"
    )
    return replace(comparison, expected=None, why_unknown=why)
