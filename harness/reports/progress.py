"""What a person sees while a run goes: a display that changes on a terminal, now and then a line elsewhere."""

import sys
from typing import Protocol, Self, TextIO

from rich.console import Console

from harness.clock import Clock
from harness.reports.live import LiveProgress
from harness.reports.plain_progress import PlainProgress

__all__ = ["LiveProgress", "PlainProgress", "Progress", "make_progress"]


class Progress(Protocol):
    """Told what happens; use as a context manager. Never raises, never waits."""

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """A server has come this far in starting: ``prefill-0``, ``loading weights``, seconds since its start."""
        ...

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """A phase of ``total`` requests begins; the one before has ended."""
        ...

    def advance(self, done: int, total: int, failed: int) -> None:
        """Of this phase ``done`` requests have ended, ``failed`` of them not OK."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...

    def close(self) -> None:
        """Nothing more will happen; a second time does nothing."""
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
