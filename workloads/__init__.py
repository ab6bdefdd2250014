"""The catalogue's cases: functions that return what to ask, one module a family.

Importing this package registers all of them, in the order in which they are shown and run.
"""

from workloads import (  # noqa: I001 - this order is the catalogue's
    lengths,
    hits,
    direct,
    offload,
    prefixes,
    chat,
    sampling,
    endpoints,
    concurrency,
    pressure,
    topology,
)

__all__ = [
    "chat",
    "concurrency",
    "direct",
    "endpoints",
    "hits",
    "lengths",
    "offload",
    "prefixes",
    "pressure",
    "sampling",
    "topology",
]
