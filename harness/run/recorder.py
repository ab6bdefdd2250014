"""Collects the history of a run."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from harness.history import Entry, History


class Recorder:
    """Keeps entries in memory and passes each to ``keep``, which may store it, so that a killed run can be judged.

    ``entries`` are the beginning of the history; they are not passed to ``keep``.
    """

    def __init__(self, keep: Callable[[Entry], None] = lambda _entry: None, entries: Iterable[Entry] = ()) -> None:
        self._keep = keep
        self._entries = list(entries)
        self._history = History(())

    def __call__(self, entry: Entry) -> None:
        """Add the next entry."""
        self._entries.append(entry)
        self._keep(entry)

    @contextmanager
    def telling(self, listener: Callable[[Entry], None]) -> Iterator[None]:
        """Until the context is left, tell ``listener`` of each new entry, before its large fields may lie on disk."""
        keep = self._keep

        def both(entry: Entry) -> None:
            listener(entry)
            keep(entry)

        self._keep = both
        try:
            yield
        finally:
            self._keep = keep

    @property
    def history(self) -> History:
        """All entries so far; the same object until the next entry, so that what was derived from it still holds."""
        if later := self._entries[len(self._history.entries) :]:
            self._history = self._history.followed_by(later)
        return self._history
