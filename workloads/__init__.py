"""The catalogue's workloads: functions that return the phases of a scenario, one module for each family.

Importing this package registers all workloads, in the order in which they are listed and run.
"""

from workloads import (  # noqa: I001 - the order of the catalogue
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
    parameters,
    pairs,
)

__all__ = [
    "chat",
    "concurrency",
    "direct",
    "endpoints",
    "hits",
    "lengths",
    "offload",
    "pairs",
    "parameters",
    "prefixes",
    "pressure",
    "sampling",
    "topology",
]
