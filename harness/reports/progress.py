"""Progress shown during a run: a changing display on a terminal, plain lines elsewhere."""

import sys
from typing import Protocol, Self, TextIO

from rich.console import Console

from harness.clock import Clock
from harness.reports.live import LiveProgress
from harness.reports.plain_progress import PlainProgress

__all__ = ["LiveProgress", "PlainProgress", "Progress", "make_progress"]


class Progress(Protocol):
    """Shows progress. Use it as a context manager. Its methods never raise and never wait."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Show how far a server has come in starting: ``prefill-0``, ``loading weights``, seconds since its start."""
        ...

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """A phase of ``total`` requests begins; the phase before has ended."""
        ...

    def advance(self, done: int, total: int, failed: int) -> None:
        """``done`` requests of this phase have ended, ``failed`` of them with an outcome other than OK."""
        ...

    def note(self, text: str) -> None:
        """Show a text on a line of its own."""
        ...

    def close(self) -> None:
        """End the display; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_progress(*, clock: Clock, plain: bool = False, stream: TextIO | None = None) -> Progress:
    """The kind that suits ``stream`` (default: stderr): live on a terminal, else plain lines."""
    stream = stream or sys.stderr
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal and not plain:
        return LiveProgress(console, clock)
    return PlainProgress(stream, clock)
