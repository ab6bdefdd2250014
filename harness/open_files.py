"""How many files and sockets this process has open, and how many it may have. Each stream of a load needs one."""

import contextlib
import os
import resource

_OWN = ("/proc/self/fd", "/dev/fd")


def open_files() -> int | None:
    """The number of open files and sockets; None if the system does not tell."""
    for folder in _OWN:
        with contextlib.suppress(OSError):
            # The listing itself needs one.
            return sum(1 for _ in os.scandir(folder)) - 1
    return None


def file_limit() -> int | None:
    """The most files and sockets that this process may have open; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_file_limit() -> None:
    """Raise the limit as far as a process may do by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems refuse "no limit" for a process, although they state it as the highest one.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
