"""The faults of ``python -m harness list``: a line each, and its options with their defaults."""

import inspect
from collections.abc import Iterator

from harness.faults import KINDS, Fault
from harness.faults.plan import options_of

OF_ALL = "after=1, for=3, ended=0, when=…, alone=…, provokes=…"
"""Options that all faults have but those of the whole load."""


def fault_lines(width: int) -> Iterator[str]:
    """A line for each kind, one for its options, and one for what is to be known of it. ``width``: of the names."""
    for name, kind in KINDS.items():
        yield f"  {name:<{width}}  {_summary(kind)}"
        yield f"  {'':<{width}}  options: {', '.join(_options(kind))}"
        if note := getattr(kind, "note", ""):
            yield f"  {'':<{width}}  note: {note}"


def _summary(kind: type[Fault]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _options(kind: type[Fault]) -> Iterator[str]:
    for name, default in options_of(kind).items():
        yield f"{name}={default:g}" if isinstance(default, float) else f"{name}={default}"
