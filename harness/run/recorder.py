"""Keeps a run's history while it is made."""

from collections.abc import Callable

from harness.history import Ended, Entry, History, Outcome, PhaseStarted


class Recorder:
    """In memory, and wherever ``keep`` puts each entry: a killed run can still be judged from there."""

    def __init__(self, keep: Callable[[Entry], None] = lambda _entry: None) -> None:
        self._keep = keep
        self._entries: list[Entry] = []
        self._failed = 0

    def __call__(self, entry: Entry) -> None:
        """Take the next entry."""
        self._entries.append(entry)
        self._keep(entry)
        if isinstance(entry, PhaseStarted):
            self._failed = 0
        elif isinstance(entry, Ended):
            self._failed += entry.outcome is not Outcome.OK

    @property
    def failed(self) -> int:
        """Operations of the present phase that did not end OK."""
        return self._failed

    @property
    def history(self) -> History:
        """Everything so far."""
        return History(tuple(self._entries))
