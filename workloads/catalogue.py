"""The whole catalogue, and how a part of it is chosen."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from harness.errors import UsageError
from workloads import (
    chat,
    concurrency,
    direct,
    endpoints,
    hits,
    lengths,
    offload,
    prefixes,
    pressure,
    sampling,
    topology,
)
from workloads.registry import CATALOGUE, Workload

MODULES = (lengths, hits, direct, offload, prefixes, chat, sampling, endpoints, concurrency, pressure, topology)
"""One a family, in the order in which they are shown and run; importing them registers their workloads."""


def catalogue() -> tuple[Workload, ...]:
    """Every workload, family by family."""
    order = [module.__name__.rpartition(".")[2] for module in MODULES]
    return tuple(sorted(CATALOGUE.values(), key=lambda entry: order.index(entry.family)))


def choose(patterns: Sequence[str]) -> tuple[Workload, ...]:
    """Those whose name or family matches a pattern (``*`` and ``?`` as in file names), in the catalogue's order.

    Raises:
        UsageError: a pattern that matches none.

    """
    everything = catalogue()
    for pattern in patterns:
        if not any(_matches(entry, [pattern]) for entry in everything):
            families = ", ".join(dict.fromkeys(entry.family for entry in everything))
            raise UsageError(
                f"No workload is called {pattern!r}, and no family. `python -m harness list` shows all of them; "
                f"the families are {families}."
            )
    return tuple(entry for entry in everything if _matches(entry, patterns))


def _matches(entry: Workload, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (entry.name, entry.family))
