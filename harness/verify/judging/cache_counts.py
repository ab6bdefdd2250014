"""How many prompt tokens a server took from its caches, by its counters or by the usage in its answers."""

from harness.history import Operation
from harness.observe.growth import Delta

_COUNTERS = (
    ("prompt_tokens", "local_cache_hit", "external_kv_transfer"),
    ("prefix_queries", "prefix_hits", "external_hits"),
)
"""Counters of prompt tokens received, found in the prefix cache, and brought by connectors. The first row counts each
request once; the second row, of older engines, counts repeated lookups again."""


def reported_cached_tokens(operation: Operation) -> int | None:
    """Cached prompt tokens by the usage in the answer; None if it reports none (vLLM leaves a 0 out)."""
    return None if operation.ended.usage is None else operation.ended.usage.cached_tokens


def counted_cached_tokens(grown: Delta, sent: int, *, with_connectors: bool) -> int | str:
    """Cached prompt tokens of requests with ``sent`` prompt tokens together, by the growth of the server's counters.

    Returns a reason if they are not known: a counter was not read, or the server had other requests meanwhile.
    ``with_connectors``: whether tokens that connectors brought count as cached.
    """
    why = ""
    for queried, local, external in _COUNTERS:
        found, brought = grown.of(local), grown.of(external) or 0
        if grown.of(queried) is None or found is None:
            why = why or grown.why(queried) or grown.why(local)
        elif grown.of(queried) == sent:
            return int(found + (brought if with_connectors else 0))
        else:
            why = f"it counted {grown.of(queried):,.0f} prompt tokens meanwhile, and {sent:,} were sent to it"
    return why
