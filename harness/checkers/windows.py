"""When faults were at work, and which operations overlapped them.

A fault's window begins when the harness begins to cause it, and ends when the deployment has recovered: when the first
operation that was sent after the healing completes, to which the fault's target was necessary. What the deployment
does wrong later than ``RECOVERY_S`` after the healing is no effect of the fault any more.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from harness.history import (
    FaultBegan,
    FaultHealed,
    FaultPlanned,
    FaultProved,
    History,
    Operation,
    Outcome,
    Tolerated,
)
from harness.memo import once

RECOVERY_S = 60.0
"""Seconds after the healing within which a deployment must serve requests again: two of NIXL's leases (30 s)."""


@dataclass(frozen=True, slots=True)
class Window:
    """One fault of a run."""

    planned: FaultPlanned
    began: float | None
    """None: the load ended before the fault was to begin."""
    evidence: str
    """What was observed of the fault; empty: it is not known that it took hold."""
    healed_at: float | None
    healed: bool
    text: str
    """What was observed of the healing, or why it failed."""
    recovered_at: float | None
    """When the first operation that was sent after the healing completed; None: none did in time."""
    proved_at: float | None = None
    """When it was observed that the fault had taken hold."""

    @property
    def name(self) -> str:
        """The fault's name in the run."""
        return self.planned.fault

    @property
    def recovered_after(self) -> float | None:
        """Seconds from the healing to the first completed operation that was sent after it."""
        if self.healed_at is None or self.recovered_at is None:
            return None
        return self.recovered_at - self.healed_at

    @property
    def end(self) -> float:
        """The end of the window, in seconds on the run's clock."""
        if self.recovered_at is not None:
            return self.recovered_at
        return math.inf if self.healed_at is None else self.healed_at + RECOVERY_S

    def overlaps(self, operation: Operation) -> bool:
        """Whether the operation was in flight while the fault was at work."""
        return self.began is not None and operation.sent.at <= self.end and operation.ended.at >= self.began

    def tolerates(self, what: Tolerated) -> bool:
        """Whether the fault may have this effect on a deployment that handles it well."""
        return what in self.planned.tolerates


@once
def windows(history: History) -> tuple[Window, ...]:
    """The run's faults, in the order in which they were planned."""
    planned = tuple(history.of(FaultPlanned))
    if not planned:
        return ()
    served = _Served.of(history)
    return tuple(_window(steps, served) for steps in _steps(history))


@dataclass(slots=True)
class _Steps:
    """What the history says of one planned fault."""

    planned: FaultPlanned
    began: FaultBegan | None = None
    proved: FaultProved | None = None
    healed: FaultHealed | None = None


def _steps(history: History) -> Iterable[_Steps]:
    """The steps of each planned fault. Evidence of an earlier fault of the same name is none of a later one."""
    found: list[_Steps] = []
    newest: dict[str, _Steps] = {}
    for entry in history.entries:
        if isinstance(entry, FaultPlanned):
            newest[entry.fault] = steps = _Steps(entry)
            found.append(steps)
        elif isinstance(entry, FaultBegan | FaultProved | FaultHealed) and entry.fault in newest:
            _note(newest[entry.fault], entry)
    return found


def _note(steps: _Steps, entry: FaultBegan | FaultProved | FaultHealed) -> None:
    match entry:
        case FaultBegan():
            steps.began = entry
        case FaultProved():
            steps.proved = entry
        case FaultHealed():
            steps.healed = entry


def _window(steps: _Steps, served: "_Served") -> Window:
    began, seen, end = steps.began, steps.proved, steps.healed
    return Window(
        steps.planned,
        began.at if began else None,
        seen.evidence if seen else "",
        end.at if end else None,
        end is not None and end.healed,
        end.text if end else "",
        served.first_after(end.at) if end else None,
        seen.at if seen else None,
    )


def at_work(history: History, operation: Operation, what: Tolerated | None = None) -> Iterator[Window]:
    """The faults that the operation overlapped; ``what``: only those that may have this effect."""
    for window in windows(history):
        if window.overlaps(operation) and (what is None or window.tolerates(what)):
            yield window


def during(history: History, phase: Collection[Operation]) -> tuple[Window, ...]:
    """The faults that were at work while any of these operations was in flight."""
    found = windows(history)
    if not found or not phase:
        return ()
    first, last = min(one.sent.at for one in phase), max(one.ended.at for one in phase)
    return tuple(one for one in found if one.began is not None and one.began <= last and one.end >= first)


@dataclass(frozen=True, slots=True)
class _Served:
    """Completed operations, by when they were sent."""

    sent: "array[float]"
    ended: "array[float]"

    @classmethod
    def of(cls, history: History) -> "_Served":
        completed = [one for one in history.operations() if one.outcome is Outcome.OK and one.request.of_load]
        ordered = sorted(completed, key=lambda one: one.sent.at)
        return cls(array("d", [one.sent.at for one in ordered]), array("d", [one.ended.at for one in ordered]))

    def first_after(self, at: float) -> float | None:
        """When the first of the operations ended that were sent at or after this time, within ``RECOVERY_S``."""
        start, stop = bisect_left(self.sent, at), bisect_left(self.sent, at + RECOVERY_S)
        return min(self.ended[start:stop], default=None)
