"""Unforeseen errors: one paragraph for the user, the traceback in the run's directory, exit code 4, and no verdict.

Tasks that run together raise exception groups. A group that holds only known errors (HarnessError) is replaced by the
first of them; any other group is a crash.
"""

import asyncio
import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import CrashError, HarnessError
from harness.redact import redact_text
from harness.reports.text import clean
from harness.store import save_text
from harness.store.rundir import DEPLOYMENT

CRASH = "crash.txt"
"""The file with the traceback in a run's directory."""
_FILES = "Allow more open files (ulimit -n), or use a lower --concurrency, and run again."
_ROOM = "Make room on the disk, or choose another directory with --result-dir, and run again."
_REMEDIES = {
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _ROOM,
    errno.ENOMEM: "The memory that this process may have is used up: send fewer requests, and run again.",
}
"""What the user can do, by the kind of error: these are no bugs of the harness."""
_FRAMES = 3
"""Frames shown if no traceback could be stored, the innermost first."""


@contextmanager
def ungrouped() -> Iterator[None]:
    """Take a known error out of the exception groups around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        known = known_error(group)
        if known is None:
            raise
        raise known from group


def known_error(error: BaseException) -> BaseException | None:
    """The HarnessError or interruption that this error or group of errors amounts to; None if it is a crash."""
    leaves = [leaf for leaf in _leaves(error) if not isinstance(leaf, asyncio.CancelledError)]
    if not leaves:
        return asyncio.CancelledError()
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return KeyboardInterrupt()
    known = [leaf for leaf in leaves if isinstance(leaf, HarnessError)]
    return known[0] if len(known) == len(leaves) else None


def crashed(error: BaseException, directory: Path | None = None) -> CrashError:
    """The error to raise instead of ``error``. The traceback is stored in the run's ``directory``, if it has one."""
    what = _what(error)
    remedy = _remedy(error)
    kept = None if directory is None else _kept(error, directory)
    lines = [f"the harness itself failed: {what}{'' if kept else f' ({_where(error)})'}."]
    lines.append("This says nothing about the deployment.")
    if remedy:
        lines.append(remedy)
    if directory is not None:
        lines.append(f"Everything recorded before the failure is stored in {directory}")
        lines[-1] += f", with the traceback in {CRASH}." if kept else "; the traceback could not be stored there."
        if not remedy:
            lines.append(f"Please report this failure{f' with {CRASH}' if kept else ''}.")
        if (directory / DEPLOYMENT).exists():
            lines.append(f"To judge what was recorded: python -m harness check {directory}")
    else:
        report = "" if remedy else " Please report this failure with the command line."
        lines.append(f"No run was stored.{report}")
    return CrashError(" ".join(lines))


def _remedy(error: BaseException) -> str:
    """What to do about a machine that has run out of something; empty if that is not the reason."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, MemoryError) for leaf in leaves):
        return _REMEDIES[errno.ENOMEM]
    numbers = (leaf.errno or 0 for leaf in leaves if isinstance(leaf, OSError))
    return next((_REMEDIES[number] for number in numbers if number in _REMEDIES), "")


def _what(error: BaseException) -> str:
    return "; ".join(dict.fromkeys(_one_line(leaf) for leaf in _leaves(error)))


def _one_line(error: BaseException) -> str:
    try:
        text = redact_text(clean(str(error), 600))
    except Exception:  # noqa: BLE001 - the error's __str__ may be broken
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(next(_leaves(error)).__traceback__)[-_FRAMES:]
    return "in " + ", called from ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames[::-1])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _kept(error: BaseException, directory: Path) -> bool:
    """Store the traceback; False if that failed, as on a full disk."""
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
        save_text(directory / CRASH, "\n".join(map(redact_text, lines)) + "\n")
    except Exception:  # noqa: BLE001 - only the first failure is reported
        return False
    return True
