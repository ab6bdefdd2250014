"""Replaces standard output and standard error by streams that never raise, and that a CI system reads no command from.

The reader may go away (``| head -1``), the disk may be full (``> /dev/full``), a stream may be closed, or unable to
encode a character. None of this is about the deployment, so it must not change the exit code or keep a file from being
stored. ``print``, argparse, rich and logging look up ``sys.stdout`` and ``sys.stderr`` when they print.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from harness.cli.ci_log import CiLog

_STDERR = 2


class UnfailingStream:
    """A text stream that never raises: after the first write that fails, everything is dropped."""

    def __init__(self, stream: TextIO | None, log: CiLog | None = None) -> None:
        self._stream = stream
        """None: the process was started without this stream."""
        self._log = log or CiLog({})
        self.lost = stream is None
        """Whether a write failed."""

    def write(self, text: str) -> int:
        """Like a file's; never fails."""
        self.command(self._log.harmless(text))
        return len(text)

    def command(self, text: str) -> None:
        """Write text as it is: the harness's own commands to a CI system. Never fails."""
        if self._stream is not None and not self.lost:
            with self._dropping():
                self._stream.write(text)

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
        """Whether the stream is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        # ValueError: the stream was closed in this process.
        except (OSError, ValueError):
            self.lost = True

    def leave(self) -> None:
        """Flush for the last time."""
        self.flush()
        if self._stream is not None and self.lost:
            # The interpreter would flush again at its exit, fail, and change the exit code to 120.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def unfailing_output() -> Iterator[None]:
    """Guard both streams of this process while the context lasts."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    guards = [UnfailingStream(stream, CiLog(os.environ)) for stream in before]
    for stream in before:
        _escape_unencodable(stream)
    sys.stdout, sys.stderr = (cast("TextIO", guard) for guard in guards)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for guard in guards:
            guard.leave()


def print_command(line: str) -> None:
    """Print a line on standard error that a CI system is to read as a command."""
    if isinstance(stream := sys.stderr, UnfailingStream):
        stream.command(f"{line}\n")
    else:
        print(line, file=stream)


def _fill_closed_descriptors() -> None:
    """Open the closed standard descriptors: otherwise the next file that is opened would get their numbers."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the function has no name for it
        os.close(descriptor)


def _escape_unencodable(stream: object) -> None:
    """Write a character that the stream's encoding lacks as an escape, instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            reconfigure(errors="backslashreplace")
