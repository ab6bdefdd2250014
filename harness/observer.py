"""Observers of progress (a terminal, a log, a notebook), used while deploying, running and shrinking."""

from typing import Protocol


class RunObserver(Protocol):
    """Is informed of progress. Its methods are called from the event loop: they must neither raise nor block."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """A server reached a stage of starting: ``prefill-0``, ``loading weights``, seconds since its start."""

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """A phase of ``total`` requests begins; the phase before it has ended."""

    def advance(self, done: int, total: int, failed: int) -> None:
        """Of the current phase, ``done`` requests have ended, and ``failed`` of these did not end OK."""

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Verification begins. It will take about ``expected`` seconds.

        It may take ``seconds`` and compute ``tokens`` engine tokens; None: there is no limit.
        """

    def note(self, text: str) -> None:
        """A message for the user."""


class SilentObserver:
    """Ignores everything. Observers of only some events can inherit the other methods from it."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Do nothing."""

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int, failed: int) -> None:
        """Do nothing."""

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT: RunObserver = SilentObserver()
"""The default observer."""
