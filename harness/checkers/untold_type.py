"""Bytes that are twice what was expected, of servers that do not tell of which type their KV is.

vLLM serves a checkpoint of 16 bits in 16 bits unless it is told ``--dtype float32``, and says so only in
``/server_info``. Where that is closed, bytes that are right but for this factor accuse nobody.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.facts import Server
from harness.verdict import Bounds, Comparison, Verdict

_FACTOR = 2
"""Bytes of a float32 beside those of a 16-bit number."""


def excused_by_untold_type(comparison: Comparison, servers: Sequence[Server]) -> Comparison:
    """The comparison of these servers' bytes; unknown where the type of their KV may explain it."""
    expected, observed = comparison.expected, comparison.observed
    if comparison.verdict is not Verdict.INVALID or expected is None or observed is None:
        return comparison
    silent = [server.name for server in servers if server.kv_dtype is None]
    wider = Bounds(expected.low * _FACTOR, expected.high * _FACTOR)
    if not silent or not wider.low <= observed <= wider.high:
        return comparison
    why = (
        f"{observed:,} bytes are twice the {expected} expected, as with KV of type float32, and {silent[0]} does not "
        "tell its type: give it with --kv-cache-dtype, or start the servers with VLLM_SERVER_DEV_MODE=1"
    )
    return replace(comparison, expected=None, why_unknown=why)
