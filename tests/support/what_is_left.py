"""What a process and all that it started hold: processes, ports, threads, descriptors, shared memory. Linux only.

Other processes of the machine come and go meanwhile. Those of a test are told by a variable of their environment, which
each of them inherits, whoever its parent is now.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "PD_HARNESS_TEST_MARK"
_SHARED = Path("/dev/shm")  # noqa: S108 - where the kernel keeps shared memory


def marked(mark: str) -> list[str]:
    """The processes that have this mark and have not ended, with their command lines."""
    return [_command(pid) for pid in _pids() if f"{MARK}={mark}".encode() in _read(pid / "environ").split(b"\0")]


def threads() -> set[str]:
    """The ids of this process's threads."""
    return set(os.listdir("/proc/self/task"))  # noqa: PTH208 - their names alone


def descriptors() -> dict[str, str]:
    """This process's open files, sockets and pipes, by number."""
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[one.name] = str(one.readlink())
    return found


def shared_memory() -> set[str]:
    """Segments of shared memory that no process maps: nobody will remove them."""
    # Listed first: what another process creates during the look at all maps would seem to have no user.
    segments = [one.name for one in _SHARED.iterdir()]
    mapped = b"".join(_read(pid / "maps") for pid in _pids()).decode(errors="replace")
    return {name for name in segments if f"{_SHARED}/{name}" not in mapped}


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as tried:
        # As servers do: what is left of old connections does not matter.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return True
    return False


def _pids() -> Iterator[Path]:
    yield from (one for one in Path("/proc").iterdir() if one.name.isdecimal())


def _command(pid: Path) -> str:
    return f"{pid.name}: {_read(pid / 'cmdline').replace(bytes(1), b' ').decode(errors='replace')}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
