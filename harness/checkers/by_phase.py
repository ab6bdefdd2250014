"""A run's operations and readings by phase, gathered once: a run may have hundreds of phases."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from harness.history import History, Operation, Scraped
from harness.memo import once
from harness.oracle import PhaseKey


@dataclass(frozen=True, slots=True)
class ByPhase:
    """Operations and readings."""

    _operations: Mapping[PhaseKey, Sequence[Operation]]
    _readings: Mapping[tuple[PhaseKey, str], Mapping[str, Scraped]]
    _sent: Sequence[tuple[float, PhaseKey]]
    """When each operation was sent, rising, and its phase."""

    def operations(self, phase: PhaseKey) -> Sequence[Operation]:
        """The phase's operations in the order in which they were sent."""
        return self._operations.get(phase, ())

    def readings(self, phase: PhaseKey, label: str) -> Mapping[str, Scraped]:
        """Readings by server name, without servers whose reading failed. ``label``: before or after the phase."""
        return self._readings.get((phase, label), {})

    def sent_between(self, start: float, end: float) -> set[PhaseKey]:
        """The phases with an operation that was sent from ``start`` to ``end``, both included."""
        first = bisect_left(self._sent, start, key=itemgetter(0))
        last = bisect_right(self._sent, end, key=itemgetter(0))
        return {phase for _, phase in self._sent[first:last]}


@once
def by_phase(history: History) -> ByPhase:
    """The history's operations and readings."""
    operations: dict[PhaseKey, list[Operation]] = {}
    for operation in history.operations():
        operations.setdefault((operation.sent.scenario, operation.sent.phase), []).append(operation)
    readings: dict[tuple[PhaseKey, str], dict[str, Scraped]] = {}
    for one in history.of(Scraped):
        readings.setdefault(((one.scenario, one.phase), one.label), {})[one.server] = one
    sent = sorted((one.sent.at, phase) for phase, of_phase in operations.items() for one in of_phase)
    return ByPhase(operations, readings, sent)
