"""The directory of all nights.

    RESULT_DIR/
      index.html                 the page over all nights
      nightly.lock               held by the night that runs
      nightly.jsonl              a line for each run of a job, for a dashboard to read
      nights/2026-03-04/
        night.json               the night's record
        summary.md               the night in a few lines, for a CI system's page
        steady-1/                a run of a job: its output, its JUnit file, and the run's directory

Nothing is removed or overwritten but by ``--keep``. A record that cannot be read stays as it is and becomes a night
with that reason.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

from bench.nightly.record import Night, Result, State, from_json, to_json
from harness.errors import ExitCode, UsageError
from harness.store.atomic import write_atomically

RECORD = "night.json"
_LOCK = "nightly.lock"
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.(\d+))?")


def nights_dir(result_dir: Path) -> Path:
    """Where the nights are."""
    return result_dir / "nights"


@contextmanager
def locked(result_dir: Path) -> Iterator[None]:
    """Keep other nights out of the directory. Raises UsageError if one is in it, or if it cannot be written to.

    The kernel gives the lock back when the process ends, however it ends.
    """
    try:
        nights_dir(result_dir).mkdir(parents=True, exist_ok=True)
        file = (result_dir / _LOCK).open("a+")
    except OSError as error:
        raise UsageError(f"{result_dir} cannot be written to: {error.strerror}. Name another --result-dir.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            raise UsageError(
                f"another night runs in {result_dir} (process {owner}). Wait for its end, or name another --result-dir."
            ) from None
        # The number is for people; on a full disk the lock holds without it.
        with suppress(OSError):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def boot_id() -> str:
    """Identifies this start of the machine; empty where the kernel does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def own_pid() -> int:
    """The number of this process."""
    return os.getpid()


def fresh(result_dir: Path, day: date) -> Path:
    """Make the directory of a new night. Raises OSError."""
    for number in count(1):
        path = nights_dir(result_dir) / (day.isoformat() if number == 1 else f"{day.isoformat()}.{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("count() has no end")


def save(directory: Path, night: Night) -> None:
    """Write the record whole or not at all. Raises OSError."""
    write_atomically(directory / RECORD, to_json(night))


def read_all(result_dir: Path) -> tuple[Night, ...]:
    """Every night, the oldest first; what cannot be read is a failed night that says so."""
    try:
        found = [path for path in nights_dir(result_dir).iterdir() if _is_name(path.name) and path.is_dir()]
    except FileNotFoundError:
        return ()
    return tuple(_read(path) for path in sorted(found, key=lambda path: _order(path.name)))


def _is_name(name: str) -> bool:
    """Whether a night may be called so: other directories there, 2026-02-30 among them, are no nights."""
    match = _NAME.fullmatch(name)
    with suppress(ValueError):
        return match is not None and bool(date.fromisoformat(match[1]))
    return False


def _order(name: str) -> tuple[str, int]:
    match = _NAME.fullmatch(name)
    assert match, name  # noqa: S101 - only such names are sorted
    return match[1], int(match[2] or 1)


def _read(directory: Path) -> Night:
    path = directory / RECORD
    try:
        night = from_json(path.read_bytes())
    except FileNotFoundError:
        return _unreadable(directory, f"it has no {RECORD}: the night was ended as it began, or the disk was full")
    except OSError as error:
        return _unreadable(directory, f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        return _unreadable(directory, f"{path} is damaged, and kept as it is: {error}")
    # The directory was renamed or copied, perhaps beside the original.
    night.name = directory.name
    return night


def _unreadable(directory: Path, why: str) -> Night:
    with suppress(OSError):
        written = datetime.fromtimestamp(directory.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return _failed(directory.name, written, why)
    return _failed(directory.name, "", why)


def _failed(name: str, when: str, why: str) -> Night:
    return Night(
        name,
        State.ENDED,
        when,
        pid=0,
        boot_id="",
        seed=0,
        planned=[],
        words=[],
        harness_version="",
        commit="",
        result=Result.FAILED,
        exit_code=int(ExitCode.HARNESS),
        reasons=[why],
    )


def close_abandoned(result_dir: Path) -> Sequence[Night]:
    """Give every night that never ended its reason; returns these nights.

    Call it with the lock held: then no other night can be running, whatever its record says. Raises OSError.
    """
    closed = [night for night in read_all(result_dir) if night.state is State.RUNNING]
    for night in closed:
        _close(night)
        save(nights_dir(result_dir) / night.name, night)
    return closed


def _close(night: Night) -> None:
    done, planned = len(night.runs), sum(job.repeat for job in night.planned)
    after = f"after {done} of {planned} runs"
    if night.boot_id and night.boot_id != boot_id():
        why = f"it never ended: the machine was restarted {after}"
    else:
        why = f"it never ended: its process {night.pid} was killed {after}, perhaps for lack of memory"
    night.state, night.result, night.exit_code = State.ENDED, Result.FAILED, int(ExitCode.HARNESS)
    night.reasons = [why, *night.reasons]


def prune(result_dir: Path, keep: int, own: str = "") -> Sequence[str]:
    """Remove the oldest nights, so that ``keep`` are left; returns the names of those removed.

    Never removed are the last good night, the last baseline, with which later nights are compared, and ``own``, the
    night that has just run: by its date it may be older than others, after the clock was wrong or with ``--date``.
    """
    nights = read_all(result_dir)
    good = next((night.name for night in reversed(nights) if night.good), "")
    baseline = next((night.name for night in reversed(nights) if night.baseline), "")
    gone = [night.name for night in nights[:-keep] if night.name not in {good, baseline, own}]
    for name in gone:
        shutil.rmtree(nights_dir(result_dir) / name, ignore_errors=True)
    return gone
