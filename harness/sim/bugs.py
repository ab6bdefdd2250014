"""The table of bugs that can be planted in a simulated pair.

Whether a bug strikes a request is drawn from the request's id. If a bug cannot apply to the request (the prompt has no
partial last block, or no other request is in flight), the ledger does not list the request.

``signs`` lists where the bug must show: ``outputs`` (tokens), ``drift`` (only log-probabilities), ``sources`` (prompt
tokens by source), ``bytes``, ``failures`` (failed or expired transfers), ``leaks``, ``probe`` (later prefix hits),
``counters`` (a reading that cannot be right), ``client`` (status, stream or finish reason).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug that can be planted."""

    name: str
    row: str
    """The class of failure that the bug belongs to."""
    what: str
    """What goes wrong."""
    signs: frozenset[str]
    """Where the bug must show; see the top of this module."""


def _bug(name: str, row: str, what: str, signs: str) -> Bug:
    return Bug(name, row, what, frozenset(signs.split()))


_LOCAL = "silent local compute (parameters dropped)"
_EXPIRY = "read after lease expiry or reuse"
_FAILED_LOAD = "failed load answered with 200"
_REUSED = "write lands in a reused block on D"
_MISALIGNED = "prefix hit on D misaligned"
_RECOMPUTE = "recompute after a failed load wrong"
_FULL_HIT = "full hit reported, wrong output"
_LEAK = "leaked blocks, hung requests"
_PARTIAL = "partial, short or exactly full block"
_SIZE = "block size, layout, TP mismatch"
_REGION = "regions truncated or oversized"
_CHUNKED = "chunked prefill, preemption"
_OFFLOAD = "offload restores wrong blocks"
_MULTI = "MultiConnector ignores one of its connectors"
_METRICS = "metrics wrong"
_HANDSHAKE = "handshake, peer restart"
_PROXY = "proxy drops or alters fields"
_POISON = "poisoned prefix cache on D"
_PLANTED = "planted damage to the KV itself"

_TABLE = (
    _bug("dropped_params", _LOCAL, "D computes the prompt itself; P's blocks expire", "sources bytes failures"),
    _bug("handover_missing", _LOCAL, "P answers without kv_transfer_params", "client failures"),
    _bug("failed_load_200", _FAILED_LOAD, "D decodes garbage after a failed pull", "outputs failures bytes"),
    _bug("expired_read", _EXPIRY, "P's blocks hold another prompt when D reads them", "outputs failures"),
    _bug("foreign_blocks", _EXPIRY, "D gets another request's KV, and every counter is right", "outputs"),
    _bug("bystander_write", _REUSED, "a pull also overwrites a running request's block", "outputs"),
    _bug("leaked_blocks", _LEAK, "P forgets to release blocks that D has read", "leaks"),
    _bug("leaked_block", _LEAK, "P forgets to release one block of those that D has read", "leaks"),
    _bug("hung_request", _LEAK, "D never learns that its load has ended", "client leaks failures"),
    _bug("misaligned_hit", _MISALIGNED, "after a local hit D pulls P's first blocks instead of its last", "outputs"),
    _bug("stale_tail", _PARTIAL, "the partial last block is not transferred", "outputs bytes"),
    _bug("tail_off_by_one", _PARTIAL, "the partial last block is shifted by one token", "outputs"),
    _bug("exact_block_leak", _PARTIAL, "P does not release a prompt of exactly k blocks", "leaks"),
    _bug("block_stride", _SIZE, "P's memory is read with half its block size", "outputs"),
    _bug("unknown_engine", _SIZE, "P's answer names an engine id that does not exist", "client failures"),
    _bug("truncated_region", _REGION, "only the first half of every block arrives", "outputs bytes"),
    _bug("oversized_region", _REGION, "one block too many is transferred, and all KV is shifted", "outputs bytes"),
    _bug("chunked_partial_list", _CHUNKED, "only the blocks of the first chunk are transferred", "outputs bytes"),
    _bug("offload_wrong_block", _OFFLOAD, "the offload tier restores another chunk's KV", "outputs"),
    _bug("offload_stores_wrong", _OFFLOAD, "garbage is stored in the tier and shows only when restored", "probe"),
    _bug("ignores_nixl", _MULTI, "MultiConnector never asks NIXL", "sources bytes failures"),
    _bug("ignores_offload", _MULTI, "MultiConnector never asks the offload tier", "bytes"),
    _bug("full_hit_wrong", _FULL_HIT, "all KV is garbage, every counter is right", "outputs"),
    _bug(
        "recompute_wrong_offset", _RECOMPUTE, "after a failed pull D recomputes one block off", "outputs failures bytes"
    ),
    _bug("source_doubled", _METRICS, "external tokens are counted twice by source", "sources counters"),
    _bug("source_negative", _METRICS, "local_compute falls by the prompt's length", "sources counters"),
    _bug("bytes_doubled", _METRICS, "a transfer's bytes are counted twice", "bytes"),
    _bug("bytes_lost", _METRICS, "a transfer's bytes are not counted", "bytes"),
    _bug("queries_doubled", _METRICS, "prefix queries are counted twice", "counters"),
    _bug("legacy_offload_mismatch", _METRICS, "kv_offload_total_bytes disagrees with the newer counters", "counters"),
    _bug("notification_uncounted", _METRICS, "failed transfers omit a failed notification", "counters failures"),
    _bug("counter_reset", _METRICS, "D's counters start again from zero, as after a restart", "counters"),
    _bug("handshake_failed", _HANDSHAKE, "the handshake fails; the answer is an error", "client failures"),
    _bug("error_in_200", _HANDSHAKE, "status 200 with finish_reason error and no tokens", "client"),
    _bug("stream_cut", _HANDSHAKE, "the stream ends without [DONE]", "client"),
    _bug("swapped_blocks", _POISON, "two whole blocks are swapped: only later hits on one of them go wrong", "probe"),
    _bug("swapped_tail", _POISON, "a whole block is swapped with the partial last block", "outputs probe"),
    _bug("dropped_fields", _PROXY, "max_tokens, stop and ignore_eos are lost on the way to D", "client"),
    _bug("burst", _PROXY, "the stream arrives in one burst at its end", "client"),
    _bug("spurious_400", _PROXY, "D refuses a good request", "client"),
    _bug("flipped_byte", _PLANTED, "one byte of one token's KV is flipped", "outputs"),
    _bug("shifted_rows", _PLANTED, "all rows are shifted by one token", "outputs"),
    _bug("zeroed_last_block", _PLANTED, "the last block is zero", "outputs"),
    _bug("stale_block", _PLANTED, "one block keeps what it held before", "outputs"),
    _bug("zeroed_layer", _PLANTED, "one layer is zero in every block", "outputs"),
    _bug("scaled_kv", _PLANTED, "K and V are scaled by 1 %, which often changes only log-probabilities", "drift"),
)

BUGS = {bug.name: bug for bug in _TABLE}
