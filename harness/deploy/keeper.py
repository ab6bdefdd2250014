"""Runs one command, and guarantees that neither the command nor its descendants outlive the harness.

The keeper is a process of its own, uses the standard library only, and is started by path:

    python keeper.py GRACE_SECONDS COMMAND ...

Rule 1: the keeper's standard input is a pipe whose other end only the harness holds. However the harness ends, kill -9
included, the pipe closes, and the keeper ends the command: SIGTERM to the command's process group, GRACE_SECONDS later
SIGKILL to every descendant.

Rule 2: the keeper is a *child subreaper* (Linux): an engine's worker whose parent died becomes a child of the keeper
and not of init, so that the keeper still finds and ends it.

Rule 3: if the keeper itself is killed, the command gets SIGTERM from the kernel (PR_SET_PDEATHSIG).

Rule 4: when the command ends by itself, the keeper ends the command's remaining descendants, and exits with the
command's status (128 + N for a signal N).

Rule 5: what a killed process cannot remove itself, the keeper removes: shared memory in /dev/shm that the command or a
descendant had mapped or open, that is newer than the command, and that no process uses any more; and the directory that
PD_HARNESS_OWN_DIRECTORY names, which is the command's alone, with the directory around it if that is empty.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.05
OWN_DIRECTORY = "PD_HARNESS_OWN_DIRECTORY"
_SHARED = "/dev/shm/"  # noqa: S108 - where Linux keeps shared memory
_LOOKS = 10
"""Polls between two looks at /dev/shm, and looks at what is mapped after a change there: a file is mapped later."""


def _prctl(option: int, argument: int) -> None:
    """Only Linux has prctl; on other systems rules 2 and 3 do not hold, but rule 1 does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


def _children(pid: int) -> list[int]:
    """Direct children of a process; empty if /proc does not list them."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _signal(pid: int, number: int) -> None:
    # The process may have ended in the meantime.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap_orphans() -> None:
    # Raised when no child is left.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_descendants() -> None:
    """Send SIGKILL until no descendant is left: a process may start another one while it is being killed."""
    while remaining := _descendants(os.getpid()):
        for pid in remaining:
            _signal(pid, signal.SIGKILL)
        _reap_orphans()
        time.sleep(_POLL / 10)


def _stop(process: "subprocess.Popen[bytes]", grace: float) -> None:
    # The whole group may have ended already.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        # The command is reaped here, because _kill_descendants would discard its status.
        process.kill()
        process.wait()


def _shared_of(pid: int) -> set[int]:
    """Inodes of files in /dev/shm that a process has mapped or open; none if it has ended or belongs to another user.

    Not their names: whoever made a semaphore has it mapped by a name for the meantime, under which it is gone.
    """
    found: set[int] = set()
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        found.update(int(line.split()[4]) for line in lines if _SHARED in line)
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(one.readlink()).startswith(_SHARED):
                    found.add(one.stat().st_ino)
    return found


def _listed() -> dict[int, Path]:
    """The files in /dev/shm, by their inodes."""
    found: dict[int, Path] = {}
    with contextlib.suppress(OSError):
        for path in Path(_SHARED).iterdir():
            with contextlib.suppress(OSError):
                found[path.lstat().st_ino] = path
    return found


class _SharedMemory:
    """The shared memory that the command and its descendants made."""

    def __init__(self) -> None:
        self._listed = _listed()
        self._before = frozenset(self._listed)
        self._ours: set[int] = set()
        self._polls = self._more = 0

    def poll(self) -> None:
        """Called at every poll: look now and then, and at the processes only after a change."""
        self._polls += 1
        if self._polls % _LOOKS:
            return
        listed = _listed()
        self._more = _LOOKS if listed != self._listed else max(self._more - 1, 0)
        self._listed = listed
        if self._more:
            self.look()

    def look(self) -> None:
        """Learn what the descendants use now."""
        for pid in _descendants(os.getpid()):
            self._ours |= _shared_of(pid) - self._before

    def remove(self) -> None:
        """Remove what is left and used by nobody."""
        listed = _listed()
        left = self._ours & listed.keys()
        if not left:
            return
        used = set[int]().union(*(_shared_of(int(one.name)) for one in Path("/proc").iterdir() if one.name.isdigit()))
        for inode in left - used:
            with contextlib.suppress(OSError):
                listed[inode].unlink()


def _make_own_directory() -> None:
    if path := os.environ.get(OWN_DIRECTORY):
        # If it cannot be made, the command says so.
        with contextlib.suppress(OSError):
            Path(path).mkdir(parents=True, exist_ok=True)


def _remove_own_directory() -> None:
    if path := os.environ.get(OWN_DIRECTORY):
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()


def _harness_gone() -> bool:
    readable, _, _ = select.select([0], [], [], _POLL)
    return bool(readable) and os.read(0, 1) == b""


def _run(command: list[str], grace: float) -> int:
    _make_own_directory()
    shared = _SharedMemory()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 - no threads here
    )
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    while process.poll() is None and not stopping and not _harness_gone():
        shared.poll()
    shared.look()
    _stop(process, grace)
    shared.look()
    _kill_descendants()
    shared.remove()
    _remove_own_directory()
    status = process.returncode
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    sys.exit(_run(sys.argv[2:], float(sys.argv[1])))
