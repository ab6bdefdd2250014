"""Who hears of a run's progress: a terminal, a log, a notebook. Deploying, running and shrinking have one observer."""

from typing import Protocol


class RunObserver(Protocol):
    """Hears what happens. Its methods are called from the event loop: they must neither raise nor wait."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """A server reached this stage of starting: ``prefill-0``, ``loading weights``, seconds since its start."""
        ...

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """A phase of ``total`` requests begins; the phase before it has ended."""
        ...

    def advance(self, done: int, total: int, failed: int) -> None:
        """Of the current phase, ``done`` requests have ended, and ``failed`` of these did not end OK."""
        ...

    def note(self, text: str) -> None:
        """A message for the reader."""
        ...


class SilentObserver:
    """Ignores everything; also a base class for observers that want only some of it."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Nothing."""

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int, total: int, failed: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


SILENT: RunObserver = SilentObserver()
"""The default observer."""
