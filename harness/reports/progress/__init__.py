"""Progress shown during a run: a changing display on a terminal, plain lines elsewhere."""

import sys
from typing import Protocol, Self, TextIO

from rich.console import Console

from harness.clock import Clock
from harness.observer import RunObserver
from harness.reports.progress.live import LiveProgress
from harness.reports.progress.plain import PlainProgress

__all__ = ["LiveProgress", "PlainProgress", "Progress", "make_progress"]


class Progress(RunObserver, Protocol):
    """The observer that shows a run on a stream; use it as a context manager."""

    def close(self) -> None:
        """Nothing more will happen. A second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_progress(*, clock: Clock, plain: bool = False, stream: TextIO | None = None) -> Progress:
    """Progress on ``stream`` (default: stderr): live on a terminal, otherwise plain lines."""
    stream = stream or sys.stderr
    console = Console(file=stream, highlight=False)
    # FORCE_COLOR makes rich take a log for a terminal, as CI systems set it, but nothing in a log can be redrawn.
    if stream.isatty() and console.is_terminal and not console.is_dumb_terminal and not plain:
        return LiveProgress(console, clock)
    return PlainProgress(stream, clock)
