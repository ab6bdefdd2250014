"""Room on the disk: a night must be able to write down that there is none left."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_NAME = ".reserve"
_BYTES = 4_000_000
"""More than a night's record, its summary and a page over 400 nights need."""


class Reserve:
    """A file that is given up for the night's record when the disk is full."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME

    def __enter__(self) -> Self:
        # A disk that is full already shows elsewhere.
        with suppress(OSError):
            self._path.write_bytes(bytes(_BYTES))
        return self

    def give_up(self) -> None:
        """Make the room free."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.give_up()

    def write(self, what: Callable[[], None]) -> OSError | None:
        """Write something, giving up the reserve if that fails; returns the error if it fails all the same."""
        try:
            what()
        except OSError:
            self.give_up()
        else:
            return None
        try:
            what()
        except OSError as error:
            return error
        return None


def too_little(directory: Path, wanted: int) -> str:
    """What to say if fewer than ``wanted`` bytes are free there; empty if there is room."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}"
    if free >= wanted:
        return ""
    return f"the disk is full: {free / 1e6:,.0f} MB are free in {directory}, and a run may need {wanted / 1e6:,.0f} MB"
