"""SIGTERM ends a night as Ctrl-C does; further signals do not disturb its ending."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # What was started is given 60 s to end. A second signal would leave the night without its record.
    ignore_signals()
    raise KeyboardInterrupt(signal.Signals(number).name)


def ignore_signals() -> None:
    """Let a night that is over write its record and its reports."""
    for one in _ENDING:
        signal.signal(one, signal.SIG_IGN)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let the first of these signals raise KeyboardInterrupt with its name."""
    before = {one: signal.signal(one, _interrupt) for one in _ENDING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
