"""Compares two readings of a server's counters. Does no I/O.

Rules:

1. A process that restarted counts from 0 again. Its growth is then unknown.
2. Each label set is compared by itself. If one of several engines restarts from 0 or is no longer exposed, the sum may
   still grow, but the growth is unknown. A new label set counts from 0, since some appear with their first event.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.observe.counters import GROWING, SOURCES, Counters, Labels, integral


@dataclass(frozen=True, slots=True)
class Delta:
    """The growth of each counter; every field that only grows is in either ``grown`` or ``reasons``."""

    grown: Mapping[str, float]
    reasons: Mapping[str, str]
    """Why the growth of a counter is not known."""
    absent: frozenset[str] = frozenset()
    """Counters whose family the server does not have at all."""

    def of(self, name: str) -> float | None:
        """Return the growth of a counter, or None for a reason that :meth:`why` gives."""
        return self.grown.get(name)

    def why(self, name: str) -> str:
        """Return why the growth of a counter is not known; empty if it is known."""
        return self.reasons.get(name, "")


def unknown_delta(reason: str) -> Delta:
    """Return a delta in which every counter is unknown for the same reason."""
    return Delta({}, dict.fromkeys(GROWING, reason))


def delta(before: Counters, after: Counters) -> Delta:
    """Compute the growth of each counter between two readings of one server."""
    if (before.process_start is None) != (after.process_start is None):
        return unknown_delta("the start time of the server's process was read only once, so it may have restarted")
    if before.process_start != after.process_start:
        return unknown_delta("the server's process restarted between the readings, and its counters with it")
    reasons = {name: reason for name in GROWING if (reason := _why_unknown(name, before, after))}
    grown = {name: integral(getattr(after, name) - getattr(before, name)) for name in GROWING if name not in reasons}
    return Delta(grown, reasons, frozenset(name for name in reasons if _absent(name, after)))


def since_start(after: Counters) -> Delta:
    """The growth of each counter since the server's process started: the reading itself."""
    zeros: dict[str, Any] = {name: 0 for name in GROWING if getattr(after, name) is not None}
    return delta(replace(Counters(process_start=after.process_start), **zeros), after)


def total(deltas: Iterable[Delta]) -> Delta:
    """Sum the growth over several servers; a counter is unknown if one server's growth is unknown."""
    deltas = tuple(deltas)
    reasons = {name: reason for one in reversed(deltas) for name, reason in one.reasons.items()}
    grown = {name: integral(sum(one.grown[name] for one in deltas)) for name in GROWING if name not in reasons}
    return Delta(grown, reasons, frozenset().union(*(one.absent for one in deltas)))


def _absent(name: str, counters: Counters) -> bool:
    return getattr(counters, name) is None and name not in counters.unusable


def _why_unknown(name: str, before: Counters, after: Counters) -> str:
    family = SOURCES[name].sample
    first, last = getattr(before, name), getattr(after, name)
    unusable = after.unusable.get(name) or before.unusable.get(name)
    if unusable:
        return unusable
    if last is None:
        return f"the server exposes no {family}"
    if first is None:
        return f"{family} was not exposed in the reading before, so its growth is not known"
    if last < first:
        return f"{family} went backwards, from {first:,} to {last:,}"
    return _why_parts_unknown(family, before.parts.get(name, {}), after.parts.get(name, {}))


def _why_parts_unknown(family: str, before: Mapping[Labels, float], after: Mapping[Labels, float]) -> str:
    """Say which label set went backwards or disappeared although the sum did not shrink (rule 2); empty if none did."""
    for labels, first in before.items():
        # A label set that was at 0 and has disappeared takes nothing from the sum.
        last = after.get(labels, 0.0)
        if last < first:
            which = ", ".join(f'{name}="{value}"' for name, value in sorted(labels)) or "no label"
            gone = "is no longer exposed" if labels not in after else f"went backwards, from {first:,} to {last:,}"
            return f"{family} of the sample with {which} {gone}"
    return ""
