"""The whole catalogue of workloads, and the choice of some by name."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import entry_points

from harness.catalogue.registry import CATALOGUE, PAIRS, Workload
from harness.errors import UsageError

OURS = "workloads"
"""The package of this project's own workloads."""
ENTRY_POINTS = "pd_harness.workloads"
"""The group of entry points under which other projects name packages of workloads. Importing such a package registers
its workloads (:func:`harness.catalogue.registry.workload`)."""


def catalogue() -> tuple[Workload, ...]:
    """Every workload without faults, family by family, in the order in which they were registered.

    Raises UsageError if another project's package of workloads cannot be imported.
    """
    _import_all()
    families = list(dict.fromkeys(entry.family for entry in CATALOGUE.values()))
    return tuple(sorted(CATALOGUE.values(), key=lambda entry: families.index(entry.family)))


def ready_pairs() -> tuple[Workload, ...]:
    """Every workload that comes with faults, in the order in which they were registered. Raises as `catalogue`."""
    _import_all()
    return tuple(PAIRS.values())


def _import_all() -> None:
    # Imported by name: workloads depend on the harness, and the harness must not depend on workloads.
    import_module(OURS)
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load()
        except Exception as error:
            raise UsageError(
                f"The workloads of the installed package {entry_point.value!r} cannot be imported: "
                f"{type(error).__name__}: {error}. Repair that package, or uninstall it."
            ) from error


def choose(patterns: Sequence[str]) -> tuple[Workload, ...]:
    """The workloads whose name or family matches a pattern (``*``, ``?`` as in file names), in the catalogue's order.

    Ready pairs of a workload and faults come last. They match their whole name or family alone: whoever runs all
    workloads means to break nothing. Raises UsageError if a pattern matches no workload.
    """
    everything = (*catalogue(), *ready_pairs())
    for pattern in patterns:
        if not any(_matches(entry, [pattern]) for entry in everything):
            families = ", ".join(dict.fromkeys(entry.family for entry in everything))
            raise UsageError(
                f"No workload is called {pattern!r}, and no family of workloads. `python -m harness list` shows all "
                f"workloads; the families are {families}."
            )
    return tuple(entry for entry in everything if _matches(entry, patterns))


def _matches(entry: Workload, patterns: Iterable[str]) -> bool:
    names = (entry.name, entry.family)
    if entry.faults:
        return any(pattern in names for pattern in patterns)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
