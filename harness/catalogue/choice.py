"""The whole catalogue, and how a part of it is chosen."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import entry_points

from harness.catalogue.registry import CATALOGUE, Workload
from harness.errors import UsageError

OURS = "workloads"
"""The package of this project's own workloads."""
ENTRY_POINTS = "pd_harness.workloads"
"""Packages of other projects name themselves under this group of entry points; importing one registers its workloads
(:func:`harness.catalogue.registry.workload`)."""


def catalogue() -> tuple[Workload, ...]:
    """Every workload, family by family, in the order in which they were registered."""
    # By name, so that the harness depends on no workload: workloads depend on the harness.
    import_module(OURS)
    for entry_point in entry_points(group=ENTRY_POINTS):
        entry_point.load()
    families = list(dict.fromkeys(entry.family for entry in CATALOGUE.values()))
    return tuple(sorted(CATALOGUE.values(), key=lambda entry: families.index(entry.family)))


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
