"""Standard output and standard error that cannot make a run fail.

Whoever reads them may go away (``| head -1``), their disk may be full (``> /dev/full``), they may be closed, or may not
be able to say a character. None of this is about the deployment, so none of it may change the exit code or leave
something unstored. Everything that prints, also argparse, rich and logging, looks ``sys.stdout`` and ``sys.stderr`` up
when it prints: so the guard stands there.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_STDERR = 2


class UnfailingStream:
    """A text stream whose trouble nobody else gets: what cannot be written is dropped, and so is all that follows."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        """None: the process was started without it."""
        self.lost = stream is None
        """Whether something could not be written."""

    def write(self, text: str) -> int:
        """Like a file's; never fails."""
        if self._stream is not None and not self.lost:
            with self._dropping():
                self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Like a file's; never fails."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Like a file's; never fails."""
        if self._stream is not None and not self.lost:
            with self._dropping():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: it was closed in this process
            self.lost = True

    def leave(self) -> None:
        """Flush for the last time; what cannot be written is let go, or the interpreter would try again as it ends."""
        self.flush()
        if self._stream is not None and self.lost:
            # The exit code would then be 120, whatever the run came to.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def unfailing_output() -> Iterator[None]:
    """Guard both streams of this process for as long as the context lasts."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    guards = [UnfailingStream(stream) for stream in before]
    for stream in before:
        _say_everything(stream)
    sys.stdout, sys.stderr = (cast("TextIO", guard) for guard in guards)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for guard in guards:
            guard.leave()


def _fill_closed_descriptors() -> None:
    """Where a process is started without a standard stream, the next file that it opens would get that one's number."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the function has no name for it
        os.close(descriptor)


def _say_everything(stream: object) -> None:
    """A character that the terminal's encoding lacks is written as its number, not refused."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            reconfigure(errors="backslashreplace")
