"""A run's operations and readings by phase, gathered once: a run may have hundreds of phases."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.history import History, Operation, Scraped
from harness.memo import once
from harness.oracle import PhaseKey


@dataclass(frozen=True, slots=True)
class ByPhase:
    """Operations and readings."""

    _operations: Mapping[PhaseKey, Sequence[Operation]]
    _readings: Mapping[tuple[PhaseKey, str], Mapping[str, Scraped]]
    _sent: Sequence[float]
    """When each operation was sent, rising."""
    _phases: Sequence[PhaseKey]
    """The phase of each of them."""

    def operations(self, phase: PhaseKey) -> Sequence[Operation]:
        """The phase's operations in the order in which they were sent."""
        return self._operations.get(phase, ())

    def readings(self, phase: PhaseKey, label: str) -> Mapping[str, Scraped]:
        """Readings by server name, without servers whose reading failed. ``label``: before or after the phase."""
        return self._readings.get((phase, label), {})

    def sent_between(self, start: float, end: float) -> set[PhaseKey]:
        """The phases with an operation that was sent from ``start`` to ``end``, both included."""
        return {*self._phases[bisect_left(self._sent, start) : bisect_right(self._sent, end)]}


@once
def by_phase(history: History) -> ByPhase:
    """The history's operations and readings."""
    operations: dict[PhaseKey, list[Operation]] = {}
    keys: dict[PhaseKey, PhaseKey] = {}
    in_order = sorted(history.operations(), key=lambda one: one.sent.at)
    phases = [keys.setdefault(key, key) for one in in_order if (key := (one.sent.scenario, one.sent.phase))]
    for operation in history.operations():
        operations.setdefault((operation.sent.scenario, operation.sent.phase), []).append(operation)
    readings: dict[tuple[PhaseKey, str], dict[str, Scraped]] = {}
    for one in history.of(Scraped):
        readings.setdefault(((one.scenario, one.phase), one.label), {})[one.server] = one
    return ByPhase(operations, readings, array("d", [one.sent.at for one in in_order]), phases)
